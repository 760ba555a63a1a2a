"""From the flags of `experiments.evaluate` to a result on disk.

Photographs are measured in parts of fixed size, each written when it is done:
a run that was stopped goes on with the next part, whatever the batch size.
"""

import dataclasses
import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags

from colorjax import inference
from colorjax.colorizer import Colorizer, Variables
from colorjax.data import (
    listing,
    near_duplicates,
    pairing,
    pipeline,
    screening,
    sources,
)
from colorjax.data.engines import BatchStream
from colorjax.data.progress import Progress
from colorjax.data.screening import Screen
from colorjax.errors import UserError
from colorjax.evaluation import (
    answers,
    catalogue,
    measuring,
    protocol,
    result,
)
from colorjax.metrics import inception_features, lpips
from colorjax.training.workdir import claim_workdir
from experiments import common, evaluation_report, photographs

FLAGS = flags.FLAGS

_PART = 256  # photographs in a file of the work directory
_PARTS = 'parts'
_LEFT_OUT = 'left_out'  # the only array that has no row for each photograph
_GREY_CHROMA = 2.0  # see screening.Screen
_DEFAULT_SIZE = 256

# What may differ between a run and its continuation.
_HARMLESS = frozenset({
    'workdir', 'data_dir', 'engine', 'num_threads', 'batch_size',
    'report_photos', 'train_data', 'drop_near_duplicates'})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judged:
  """What is judged, and how its answers are had.

  Attributes:
    name: for people.
    answer: its answers.
    variables: the first argument of `answer`.
    colorizer: the method, None for pictures.
    network_size: side of the square that the method sees.
    outputs: folder of pictures, None for a method.
  """
  name: str
  answer: answers.AnswerFn
  variables: Variables
  colorizer: Colorizer | None = None
  network_size: int | None = None
  outputs: pathlib.Path | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Photographs:
  """The photographs of an evaluation, cut as its protocol has it.

  Attributes:
    photos: the photographs.
    protocol: the protocol.
    paired: their pictures by another program, if these are judged.
  """
  photos: Screen
  protocol: protocol.Protocol
  paired: pairing.PairedOutputs | None = None

  def batches(self, indices: range | list[int], batch_size: int
              ) -> BatchStream:
    """Some photographs in batches, with 'picture' where pictures are judged."""
    stream = pipeline.eval_stream(
        self.photos, batch_size=batch_size, indices=indices,
        image_size=self.protocol.image_size, fit=self.protocol.fit,
        engine=FLAGS.engine, num_threads=FLAGS.num_threads)
    if self.paired is None:
      return stream
    return pairing.attach(stream, self.paired, fit=self.protocol.fit,
                          num_threads=FLAGS.num_threads)


def run(*, checkpoint: str | None, outputs: str | None, reference: Any) -> int:
  """Measures and reports; one of the arguments says what is judged.

  Args:
    checkpoint: work directory of a finished run.
    outputs: folder of pictures.
    reference: one of `answers.REFERENCES`.

  Returns:
    The exit code.
  """
  judged = _judged(checkpoint, outputs, reference)
  networks = _networks()
  photos = _photographs(judged)
  workdir = pathlib.Path(FLAGS.workdir)
  with claim_workdir(workdir, common.flags_text(), harmless=_HARMLESS):
    if (workdir / result.METRICS_FILE).exists():
      print(f'{workdir}: this evaluation is finished; a new --workdir starts '
            'another')
      return 0
    measured = _measure(workdir / _PARTS, judged, photos, networks)
    pairs = _near_duplicates(photos.photos)
    if FLAGS.drop_near_duplicates:
      measured = _without(measured, {pair.test_index for pair in pairs or ()})
    record = _record(judged, photos, measured, pairs)
    statistics = {name: values for name, values in measured.items()
                  if name in catalogue.METRICS}
    finished = result.Result(record, statistics,
                             catalogue.summarize(statistics))
    evaluation_report.write(workdir, judged, photos, finished, networks,
                            measured['index'])
    result.write(workdir, finished)
    evaluation_report.say(workdir, finished)
    _say_missing_networks(networks)
  return 0


def _judged(checkpoint: str | None, outputs: str | None, reference: Any
            ) -> Judged:
  if reference is not None:
    return Judged(name=f'reference {reference}', variables={},
                  answer=answers.of_reference(reference))
  if outputs is not None:
    return Judged(name=f'pictures of {outputs}', variables={},
                  answer=answers.of_pictures, outputs=pathlib.Path(outputs))
  assert checkpoint is not None
  colorizer, variables, size = inference.load(pathlib.Path(checkpoint))
  return Judged(
      name=f'checkpoint {checkpoint}', variables=variables,
      colorizer=colorizer, network_size=size,
      answer=answers.of_colorizer(
          colorizer, image_size=size, num_proposals=FLAGS.num_proposals,
          num_samples=FLAGS.num_samples, num_draws=FLAGS.num_draws,
          seed=FLAGS.seed))


def _photographs(judged: Judged) -> Photographs:
  chosen = _protocol(judged)
  names = listing.read_names(FLAGS.names) if FLAGS.names else None
  source = sources.parse(FLAGS.data, train=False, data_dir=FLAGS.data_dir)
  if names is not None or chosen.count is not None:
    source = listing.choose(source, count=chosen.count, names=names)
  photos = Screen(source, min_chroma=FLAGS.min_chroma,
                  on_bad_image=FLAGS.on_bad_image)
  paired = judged.outputs and pairing.pair(photos, judged.outputs)
  return Photographs(photos=paired.photos if paired else photos,
                     protocol=chosen, paired=paired or None)


def _protocol(judged: Judged) -> protocol.Protocol:
  if FLAGS.protocol == protocol.FOLDER:
    return protocol.folder(
        FLAGS.image_size or judged.network_size or _DEFAULT_SIZE, FLAGS.fit)
  chosen = protocol.PROTOCOLS[FLAGS.protocol]
  for name in ('image_size', 'fit'):
    if FLAGS[name].present and FLAGS[name].value != getattr(chosen, name):
      raise UserError(
          f'--{name}={FLAGS[name].value}: --protocol={chosen.name} sets it to '
          f'{getattr(chosen, name)}; leave the flag out, or take '
          '--protocol=folder')
  if chosen.needs_names and not FLAGS.names:
    raise UserError(f'--protocol={chosen.name} needs --names=FILE: '
                    f'{chosen.photographs}')
  return chosen


def _networks() -> dict[str, Any]:
  """Variables of the networks whose files are given, by name."""
  loaded: dict[str, Any] = {}
  for net in ('alex', 'vgg'):
    files = FLAGS[f'lpips_{net}'].value
    if files:
      if len(files) != 2:
        raise UserError(f'--lpips_{net} takes two files with a comma between: '
                        'the classifier and the heads')
      loaded[f'lpips_{net}'] = lpips.build(net).load(
          *(pathlib.Path(file) for file in files))
  for variant in inception_features.VARIANTS:
    file = (FLAGS.inception_fid if variant == 'pytorch_fid'
            else FLAGS.inception_torchvision)
    if file:
      loaded[f'inception_{variant}'] = (
          inception_features.build(variant).load(file))
  return loaded


def _say_missing_networks(networks: Mapping[str, Any]) -> None:
  missing = {name for name, metric in catalogue.METRICS.items()
             if metric.network and metric.network not in networks}
  if missing:
    print(f'\nNot measured, for want of weights: {", ".join(sorted(missing))} '
          '(--lpips_alex, --lpips_vgg, --inception_fid, '
          '--inception_torchvision name the files)')


def _measure(folder: pathlib.Path, judged: Judged, photos: Photographs,
             networks: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Statistics of all photographs, 'index', 'digest' and 'source_chroma'."""
  folder.mkdir(exist_ok=True)
  size = photos.photos.source.size
  starts = range(0, size, _PART)
  paths = [folder / f'{start:08d}.npz' for start in starts]
  missing = [start for start, path in zip(starts, paths, strict=True)
             if not path.exists()]
  if missing:
    measure = measuring.compiled(judged.answer, judged.variables, networks)
    progress = Progress(judged.name, size, 'photographs', print,
                        done=size - sum(min(_PART, size - s) for s in missing))
    for start in missing:
      indices = range(start, min(start + _PART, size))
      with photos.batches(indices, FLAGS.batch_size) as stream:
        part = measuring.collect(
            lambda batch: _measured(measure, batch, progress), stream)
      excluded = photos.photos.exclusions.by_index()
      part[_LEFT_OUT] = np.array(
          [excluded[i].reason for i in indices if i in excluded], str)
      result.write_whole(folder / f'{start:08d}.npz', result.pack(part))
    progress.finish(size)
  parts = [result.unpack(path) for path in paths]
  measured = {name: np.concatenate([part[name] for part in parts])
              for name in parts[0]}
  if not len(measured['index']):
    raise UserError(f'--data={FLAGS.data}: no photograph can be used')
  return measured


def _measured(measure: measuring.Measure, batch: Mapping[str, np.ndarray],
              progress: Progress) -> dict[str, Any]:
  progress.add(int(batch['mask'].sum()))
  return {
      **measure(batch),
      'index': batch['index'],
      'digest': np.stack([np.frombuffer(
          listing.photo_digest(image), np.uint8) for image in batch['image']]),
      'source_chroma': np.array([
          screening.chroma(image) for image in batch['image']])}


def _record(judged: Judged, photos: Photographs,
            measured: Mapping[str, np.ndarray],
            pairs: Sequence[near_duplicates.Pair] | None) -> protocol.Record:
  source = photos.photos.source
  return protocol.Record(
      protocol=photos.protocol, data=FLAGS.data,
      photographs=tuple(source.label(int(i)) for i in measured['index']),
      pixels=listing.set_digest(row.tobytes() for row in measured['digest']),
      num_proposals=FLAGS.num_proposals, num_samples=FLAGS.num_samples,
      num_draws=FLAGS.num_draws, seed=FLAGS.seed, density=_density(judged),
      left_out=tuple(map(str, measured[_LEFT_OUT])),
      num_grey=int((measured['source_chroma'] < _GREY_CHROMA).sum()),
      near_duplicates=None if pairs is None else tuple(
          f'{pair.test_label} and {pair.train_label}: {pair.distance} bits'
          for pair in pairs),
      drops_near_duplicates=FLAGS.drop_near_duplicates, judged=judged.name)


def _density(judged: Judged) -> str:
  if judged.colorizer is None or judged.colorizer.log_prob is None:
    return ''
  assert judged.network_size is not None
  height, width = judged.colorizer.event_shape((judged.network_size,) * 2)
  kind = 'lower bound' if judged.colorizer.is_bound else 'exact'
  return f'{height} x {width}, {kind}'


def _near_duplicates(photos: Screen) -> list[near_duplicates.Pair] | None:
  if FLAGS.train_data is None:
    if FLAGS.drop_near_duplicates:
      raise UserError('--drop_near_duplicates needs --train_data: the '
                      'photographs that are not to be among those judged')
    return None
  return near_duplicates.find(
      photos, photographs.open_photos(FLAGS.train_data, train=True),
      num_threads=FLAGS.num_threads)


def _without(measured: Mapping[str, np.ndarray], dropped: Collection[int]
             ) -> dict[str, np.ndarray]:
  """The statistics of all photographs but some."""
  keep = ~np.isin(measured['index'], sorted(dropped))
  if not keep.any():
    raise UserError(f'--data={FLAGS.data}: all photographs are in '
                    f'--train_data={FLAGS.train_data} too')
  return {name: rows if name == _LEFT_OUT else rows[keep]
          for name, rows in measured.items()}
