"""The options of a training run, as plain values."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from colorjax.runs.photographs import PhotoOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizing:
  """An optimizer and its learning rate over time.

  Attributes:
    optimizer: 'adamw', 'adam' or 'sgd'.
    learning_rate: the peak learning rate.
    schedule: 'cosine', 'constant' or 'halving'.
    warmup_steps: number of steps of linear warm-up.
    halve_every: steps between halvings, with schedule='halving'.
    weight_decay: decoupled weight decay of AdamW.
    momentum: momentum of SGD.
    adam_b1: decay rate of the first moment of AdamW and Adam.
    clip_norm: largest global norm of the gradient; 0 does not clip.
    encoder_learning_rate: the peak learning rate of a pretrained encoder that
      is trained; None or 0 for that of the other parameters.
  """
  optimizer: Literal['adamw', 'adam', 'sgd'] = 'adamw'
  learning_rate: float = 1e-3
  schedule: Literal['cosine', 'constant', 'halving'] = 'cosine'
  warmup_steps: int = 100
  halve_every: int = 1000
  weight_decay: float = 0.01
  momentum: float = 0.9
  adam_b1: float = 0.9
  clip_norm: float = 1.0
  encoder_learning_rate: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainOptions:
  """The options of a training run, apart from those of its method.

  The flags of the scripts have the same names.

  Attributes:
    workdir: directory of the run.
    data: training photographs, in the form of `data.sources.parse`.
    eval_data: held-out photographs for the validation loss.
    test_data: held-out photographs for the final metrics; None for those of
      `eval_data`.
    photos: how photographs are read.
    image_size: side of the square that the network sees, in pixels.
    batch_size: photographs per step, over all devices.
    seed: seed of initialization, data order, crops and dropout.
    data_seed: seed of data order, crops and imitated scans; None for `seed`.
    replicas: number R of models that are trained at once, with the seeds
      `seed`, ..., `seed + R - 1` and the same batches (`runs.replica_options`).
      None trains one model without an axis of replicas.
    vmap: values that replicas differ in, a sequence for each of
      `runs.replica_options.SWEPT`; replica i takes value i of each.
    crop_scale: smallest fraction of the area that a random training crop
      covers.
    film: share of the training photographs whose lightness is that of an
      imitated scan of an old print (`film.family`); 0 for none.
    optimizing: optimizer and learning rate.
    player_optimizing: the same for single players of an adversarial method, by
      their names, if they differ.
    accumulate: number of microbatches that each batch is divided into, to save
      memory.
    remat: whether the backward pass computes norms, activations and losses a
      second time, to save memory.
    ema_decay: decay rate of the moving average of parameters, which is what is
      evaluated; 0 keeps no average.
    num_steps: number of updates.
    checkpoint_every: steps between checkpoints.
    keep_checkpoints: number of latest checkpoints to keep, in addition to the
      best one.
    eval_every: steps between evaluations on `eval_data`.
    log_every: steps between lines of metrics.
    patience: stop after this many evaluations without a lower loss; 0 never
      stops early.
    report: whether to measure the run and write `report/` at its end.
    num_proposals: number of colorings shown and measured for each photograph;
      fewer if the method has no more.
    report_photos: number of held-out photographs in the report's pictures.
    backbone_weights: files of the pretrained networks' weights, in the form of
      `runs.pretrained.parse`; None downloads the public files.
  """
  workdir: str | os.PathLike[str]
  data: str = 'bundled'
  eval_data: str = 'bundled'
  test_data: str | None = None
  photos: PhotoOptions = dataclasses.field(default_factory=PhotoOptions)
  image_size: int = 64
  batch_size: int = 32
  seed: int = 0
  data_seed: int | None = None
  replicas: int | None = None
  vmap: Mapping[str, Sequence[float | int]] | None = None
  crop_scale: float = 0.5
  film: float = 0.0
  optimizing: Optimizing = Optimizing()
  player_optimizing: Mapping[str, Optimizing] = dataclasses.field(
      default_factory=dict)
  accumulate: int = 1
  remat: bool = False
  ema_decay: float = 0.995
  num_steps: int = 1000
  checkpoint_every: int = 200
  keep_checkpoints: int = 2
  eval_every: int = 200
  log_every: int = 20
  patience: int = 0
  report: bool = True
  num_proposals: int = 8
  report_photos: int = 12
  backbone_weights: str | None = None

  @property
  def directory(self) -> pathlib.Path:
    """`workdir` as a path, with `~` replaced by the home directory."""
    return pathlib.Path(self.workdir).expanduser()


HARMLESS = frozenset({
    'workdir', 'data_dir', 'engine', 'num_threads', 'keep_checkpoints',
    'num_proposals', 'report_photos', 'test_data', 'report'})
"""Options that may differ when a run is resumed.

They change what is written, where, and how fast, but no number of the run.
"""


def text_of(options: Any, more: Mapping[str, Any]) -> str:
  """Formats options for `flags.txt`, one `name=value` per line, sorted.

  Args:
    options: a dataclass; nested dataclasses are written field by field.
    more: further values by name.
  """
  lines = dict(more)

  def add(record: Any) -> None:
    for field in dataclasses.fields(record):
      value = getattr(record, field.name)
      if dataclasses.is_dataclass(value):
        add(value)
      elif field.name == 'player_optimizing':
        lines.update({name: dataclasses.asdict(own)
                      for name, own in value.items()})
      elif value is not None:
        lines[field.name] = value

  add(options)
  return ''.join(
      f'{name}={json.dumps(lines[name], default=os.fspath)}\n'
      for name in sorted(lines))
