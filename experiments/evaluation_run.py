"""From the flags of `experiments.evaluate` to a result on disk.

Photographs are measured in parts of fixed size, each written when it is done:
a run that was stopped goes on with the next part, whatever the batch size.
"""

import json
import math
import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import flags

from colorjax.data import embeddings, screening
from colorjax.data.progress import Progress
from colorjax.data.screening import Screen
from colorjax.errors import UserError
from colorjax.evaluation import (
  catalogue,
  listing,
  measuring,
  near_duplicates,
  protocol,
  result,
)
from colorjax.runs import photographs
from colorjax.runs.workdir import claim_workdir
from experiments import (
  common,
  evaluation_report,
  evaluation_subject,
)
from experiments.evaluation_subject import Judged, Photographs

FLAGS = flags.FLAGS

_PART = 256  # photographs in a file of the work directory
_PARTS = 'parts'
_WEIGHTS_FILE = 'weights.json'
_LEFT_OUT = 'left_out'  # the only array that has no row for each photograph
_STAMP = 'stamp'  # of the pictures that a part was measured of
_GREY_CHROMA = 2.0  # see screening.Screen
_PALE_CHROMA = 10.0  # mean chroma, noise included, that no grey one exceeds

# What may differ between a run and its continuation.
_HARMLESS = frozenset({'workdir', 'data_dir', 'engine', 'num_threads',
                       'batch_size', 'report_photos'})
# Besides, as long as there is no result.
_APPLIED_LAST = frozenset({'train_data', 'drop_near_duplicates'})


def run(*, checkpoint: str | None, outputs: str | None, reference: Any) -> int:
  """Measures and reports; one of the arguments says what is judged.

  Args:
    checkpoint: work directory of a finished run.
    outputs: folder of pictures.
    reference: one of `answers.REFERENCES`.

  Returns:
    The exit code.
  """
  judged = evaluation_subject.judged(checkpoint, outputs, reference)
  networks = evaluation_subject.networks()
  photos = evaluation_subject.photographs(judged)
  train = _train_photographs()
  workdir = pathlib.Path(FLAGS.workdir)
  is_finished = (workdir / result.METRICS_FILE).exists()
  harmless = _HARMLESS if is_finished else _HARMLESS | _APPLIED_LAST
  with claim_workdir(workdir, common.flags_text(), harmless=harmless):
    if is_finished:
      print(f'{workdir}: this evaluation is finished; a new --workdir starts '
            'another')
      return 0
    weights = {name: embeddings.fingerprint(jax.device_get(tree))
               for name, tree in {'': judged.variables, **networks}.items()}
    _check_parts(workdir, weights)
    measured = _measure(workdir / _PARTS, judged, photos, networks)
    pairs = None if train is None else near_duplicates.find(
        photos.photos, train, num_threads=FLAGS.num_threads)
    if FLAGS.drop_near_duplicates:
      measured = _without(measured, {pair.test_index for pair in pairs or ()})
    record = _record(judged, photos, measured, pairs, weights)
    statistics = {name: values for name, values in measured.items()
                  if name in catalogue.METRICS}
    finished = result.Result(record, statistics,
                             catalogue.summarize(statistics))
    files = evaluation_report.write(workdir, judged, photos, finished,
                                    measured['index'])
    result.write(workdir, finished)
    evaluation_report.say(workdir, finished, files)
    _say_missing_networks(networks)
  return 0


def _say_missing_networks(networks: Mapping[str, Any]) -> None:
  missing = {name for name, metric in catalogue.METRICS.items()
             if metric.network and metric.network not in networks}
  if missing:
    print(f'\nNot measured, for want of weights: {", ".join(sorted(missing))} '
          '(--lpips_alex, --lpips_vgg, --inception_fid, '
          '--inception_torchvision name the files)')


def _check_parts(workdir: pathlib.Path, weights: Mapping[str, str]) -> None:
  """UserError where parts that are there were measured with other weights."""
  path = workdir / _PARTS / _WEIGHTS_FILE
  path.parent.mkdir(exist_ok=True)
  text = json.dumps(weights, sort_keys=True, indent=2)
  if not path.exists():
    result.write_whole(path, text.encode())
  elif path.read_text() != text:
    raise UserError(f'{workdir} was begun with other weights: those of the '
                    'checkpoint, or of a network of the metrics, have changed '
                    'since; choose another --workdir')


def _measure(folder: pathlib.Path, judged: Judged, photos: Photographs,
             networks: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Statistics of all photographs, 'index', 'digest' and 'source_chroma'."""
  size = photos.photos.source.size
  ranges = [range(start, min(start + _PART, size))
            for start in range(0, size, _PART)]
  parts = {indices: _kept(folder, photos, indices) for indices in ranges}
  missing = [indices for indices, part in parts.items() if part is None]
  if missing:
    measure = measuring.compiled(
        judged.answer, judged.variables, networks,
        few_at_a_time=judged.colorizer is None and not networks)
    progress = Progress(judged.name, size, 'photographs', print,
                        done=size - sum(map(len, missing)))
    for indices in missing:
      stamp = photos.stamp(indices)
      with photos.batches(indices, FLAGS.batch_size) as stream:
        part = measuring.collect(
            lambda batch: _measured(measure, batch, progress), stream)
      excluded = photos.photos.exclusions.by_index()
      part[_LEFT_OUT] = np.array(
          [excluded[i].reason for i in indices if i in excluded], str)
      result.write_whole(_part_file(folder, indices), result.pack(
          {**part, _STAMP: np.array(stamp)}))
      parts[indices] = part
    progress.finish(size)
  return _joined([part for part in parts.values() if part is not None])


def _kept(folder: pathlib.Path, photos: Photographs, indices: range
          ) -> dict[str, np.ndarray] | None:
  """A part that is there already; None where its pictures have changed.

  Parts of earlier versions have no stamp, and are measured again.
  """
  path = _part_file(folder, indices)
  if not path.exists():
    return None
  part = result.unpack(path)
  return part if part.pop(_STAMP, None) == photos.stamp(indices) else None


def _part_file(folder: pathlib.Path, indices: range) -> pathlib.Path:
  return folder / f'{indices.start:08d}.npz'


def _joined(parts: Sequence[Mapping[str, np.ndarray]]
            ) -> dict[str, np.ndarray]:
  """Parts put together; UserError where there is no photograph in them."""
  joined = {name: np.concatenate([part[name] for part in parts])
            for name in parts[0]}
  if not len(joined['index']):
    raise UserError(f'--data={FLAGS.data}: no photograph can be used; '
                    f'{len(joined[_LEFT_OUT])} were left out')
  return joined


def _measured(measure: measuring.Measure, batch: Mapping[str, np.ndarray],
              progress: Progress) -> dict[str, Any]:
  progress.add(int(batch['mask'].sum()))
  measured = jax.device_get(measure(batch))
  return {
      **measured,
      'index': batch['index'],
      'digest': np.stack([np.frombuffer(
          listing.photo_digest(image), np.uint8) for image in batch['image']]),
      # A closer look, which takes its time, at those that are pale.
      'source_chroma': np.array([
          screening.chroma(image) if pale else math.inf for image, pale in zip(
              batch['image'], measured['chroma_truth'] < _PALE_CHROMA,
              strict=True)])}


def _record(judged: Judged, photos: Photographs,
            measured: Mapping[str, np.ndarray],
            pairs: Sequence[near_duplicates.Pair] | None,
            weights: Mapping[str, str]) -> protocol.Record:
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
      drops_near_duplicates=FLAGS.drop_near_duplicates, judged=judged.name,
      weights=weights[''] if judged.colorizer else '',
      networks={name: one for name, one in weights.items() if name})


def _density(judged: Judged) -> str:
  if judged.colorizer is None or judged.colorizer.log_prob is None:
    return ''
  assert judged.network_size is not None
  height, width = judged.colorizer.event_shape((judged.network_size,) * 2)
  kind = 'lower bound' if judged.colorizer.is_bound else 'exact'
  return f'{height} x {width}, {kind}'


def _train_photographs() -> Screen | None:
  """Where near-duplicates are looked for, None if that is not asked for."""
  if FLAGS.train_data is not None:
    return photographs.open_photos(
        FLAGS.train_data, common.photo_options(), train=True)
  if FLAGS.drop_near_duplicates:
    raise UserError('--drop_near_duplicates needs --train_data: the '
                    'photographs that are not to be among those judged')
  return None


def _without(measured: Mapping[str, np.ndarray], dropped: Collection[int]
             ) -> dict[str, np.ndarray]:
  """The statistics of all photographs but some."""
  keep = ~np.isin(measured['index'], sorted(dropped))
  if not keep.any():
    raise UserError(f'--data={FLAGS.data}: all photographs are in '
                    f'--train_data={FLAGS.train_data} too')
  return {name: rows if name == _LEFT_OUT else rows[keep]
          for name, rows in measured.items()}
