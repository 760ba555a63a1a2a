"""An evaluation: from what is judged to a result on disk.

Photographs are measured in parts of fixed size, each written when it is done:
a run that was stopped goes on with the next part, whatever the batch size. A
part whose photographs or pictures have changed since is measured again.
"""

import dataclasses
import json
import math
import pathlib
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from colorjax import files, hosts, parallel
from colorjax.data import embeddings, screening
from colorjax.data.progress import Progress
from colorjax.data.screening import Screen
from colorjax.errors import UserError
from colorjax.evaluation import (
  catalogue,
  listing,
  measuring,
  near_duplicates,
  pairing,
  protocol,
  result,
)
from colorjax.runs import evaluation_report, photographs, subject
from colorjax.runs.subject import EvaluateOptions, Judged, Photographs
from colorjax.runs.workdir import claim_workdir

__all__ = ['EvaluateOptions', 'evaluate']

_PART = 256  # photographs in a file of the work directory
_PARTS = 'parts'
_WEIGHTS_FILE = 'weights.json'
_GREY_CHROMA = 2.0  # see screening.Screen
_PALE_CHROMA = 10.0  # mean chroma, noise included, that no grey one exceeds

# Arrays of a part that are no metrics.
_LEFT_OUT = 'left_out'  # the only one that has no row for each photograph
_STAMP = 'stamp'  # of the photographs and pictures that the part is of
_LIGHTNESS = 'lightness_difference'  # of pictures of another program

# What may differ between a run and its continuation.
_HARMLESS = frozenset({'workdir', 'data_dir', 'engine', 'num_threads',
                       'batch_size', 'report_photos'})
# Besides, as long as there is no result.
_APPLIED_LAST = frozenset({'train_data', 'drop_near_duplicates'})

_lightness_difference = jax.jit(pairing.lightness_difference)


def evaluate(options: EvaluateOptions, *, settings: str | None = None,
             command: str = '') -> result.EvaluationResult:
  """Measures and reports.

  Args:
    options: what is judged, and how.
    settings: what a later start has to agree with, one `--name=value` a line;
      by default the options.
    command: what a person types to get this again, for the report.

  Returns:
    The figures, those on disk if this evaluation is finished.

  Raises:
    UserError: an argument names what is not there; the work directory belongs
      to another evaluation, or cannot be written; a finished evaluation is of
      photographs, pictures or weights that have changed since.
  """
  parallel.check_batch_size(options.batch_size)
  judged = subject.judged(options)
  networks = subject.networks(options)
  photos = subject.photographs(options, judged)
  train = _train_photographs(options)
  workdir = pathlib.Path(options.workdir).expanduser()
  is_finished = hosts.on_main((workdir / result.METRICS_FILE).exists)
  harmless = _HARMLESS if is_finished else _HARMLESS | _APPLIED_LAST
  if settings is None:
    settings = ''.join(_lines(options))
  with claim_workdir(workdir, settings, harmless=harmless):
    weights = {name: embeddings.fingerprint(jax.device_get(tree))
               for name, tree in {'': judged.variables, **networks}.items()}
    if is_finished:
      _check_weights(workdir, weights)
      _check_photographs(workdir, photos)
      print(f'{workdir}: this evaluation is finished; a new workdir starts '
            'another')
      return result.load(workdir)
    if hosts.is_main():
      _begin(workdir, weights)
    measured = _measure(workdir / _PARTS, judged, photos, networks, options)
    if not hosts.is_main():
      hosts.barrier('reported')
      return result.load(workdir)
    pairs = None if train is None else near_duplicates.find(
        photos.photos, train, num_threads=options.photos.num_threads)
    if options.drop_near_duplicates:
      measured = _without(
          measured, {pair.test_index for pair in pairs or ()}, options)
    record = _record(judged, photos, measured, pairs, weights, options)
    statistics = {name: values for name, values in measured.items()
                  if name in catalogue.METRICS}
    finished = result.EvaluationResult(record, statistics,
                             catalogue.summarize(statistics))
    written = evaluation_report.write(
        workdir, judged, photos, finished, measured['index'], options,
        settings=settings, command=command)
    result.write(workdir, finished)
    evaluation_report.say(workdir, finished, written)
    _say_missing_networks(networks)
    hosts.barrier('reported')
  return finished


def _lines(options: Any) -> Iterator[str]:
  """The fields of a dataclass and of those in it, as lines of settings."""
  for field in dataclasses.fields(options):
    value = getattr(options, field.name)
    if dataclasses.is_dataclass(value):
      yield from _lines(value)
    elif value is not None:
      yield f'--{field.name}={value}\n'


def _say_missing_networks(networks: Mapping[str, Any]) -> None:
  missing = {name for name, metric in catalogue.METRICS.items()
             if metric.network and metric.network not in networks}
  if missing:
    print(f'\nNot measured, for want of weights: {", ".join(sorted(missing))} '
          '(lpips_alex, lpips_vgg, inception_fid and inception_torchvision '
          'name the files)')


def _begin(workdir: pathlib.Path, weights: Mapping[str, str]) -> None:
  """Notes which weights are measured; UserError where others have been."""
  folder = workdir / _PARTS
  try:
    folder.mkdir(exist_ok=True)
  except OSError as error:
    raise UserError(
        f'{folder}: cannot be made: {error.strerror or error}') from error
  if not _check_weights(workdir, weights):
    files.write_text(folder / _WEIGHTS_FILE, _weights_text(weights))


def _check_weights(workdir: pathlib.Path, weights: Mapping[str, str]) -> bool:
  """Whether it is known which weights were measured; UserError for others."""
  path = workdir / _PARTS / _WEIGHTS_FILE
  if not path.exists():
    return False
  if files.read_text(path) != _weights_text(weights):
    raise UserError(f'{workdir} was begun with other weights: those of the '
                    'checkpoint, or of a network of the metrics, have changed '
                    'since; choose another workdir')
  return True


def _weights_text(weights: Mapping[str, str]) -> str:
  return json.dumps(weights, sort_keys=True, indent=2)


def _check_photographs(workdir: pathlib.Path, photos: Photographs) -> None:
  """UserError where a finished evaluation is of other photographs."""
  size = photos.photos.source.size
  # Who has removed the parts wants no check.
  parts = sorted((workdir / _PARTS).glob('*.npz'))
  bounds = [*(int(path.stem) for path in parts), size]
  if any(start >= size or _stamp_of(path) not in (
      None, photos.stamp(range(start, stop))) for path, start, stop in zip(
          parts, bounds, bounds[1:], strict=False)):
    raise UserError(
        f'{workdir} holds the figures of {photos.photos.source.name} as it '
        'was: photographs or pictures have been added, removed or changed '
        'since; choose another workdir')


def _stamp_of(path: pathlib.Path) -> str | None:
  """The stamp of a part; None where there is none."""
  try:
    with path.open('rb') as raw, np.load(raw) as file:
      return str(file[_STAMP]) if _STAMP in file.files else None
  except (OSError, ValueError, zipfile.BadZipFile, zlib.error, EOFError):
    return None


def _ranges(photos: Photographs) -> list[range]:
  """The numbers of the photographs, part by part."""
  size = photos.photos.source.size
  return [range(start, min(start + _PART, size))
          for start in range(0, size, _PART)]


def _measure(folder: pathlib.Path, judged: Judged, photos: Photographs,
             networks: Mapping[str, Any], options: EvaluateOptions
             ) -> dict[str, np.ndarray]:
  """Statistics of all photographs, 'index', 'digest' and 'source_chroma'.

  Of several processes, the main one; the others return {}.
  """
  size = photos.photos.source.size
  writes = hosts.is_main()
  parts = {indices: _kept(folder, photos, indices)
           for indices in _ranges(photos)} if writes else {}
  missing = [range(*bounds) for bounds in hosts.on_main(
      lambda: [(indices.start, indices.stop)
               for indices, part in parts.items() if part is None])]
  if missing:
    measure = measuring.compiled(
        judged.answer, judged.variables, networks,
        few_at_a_time=judged.colorizer is None and not networks)
    progress = Progress(judged.name, size, 'photographs', print,
                        done=size - sum(map(len, missing)))
    for indices in missing:
      stamp = photos.stamp(indices)
      with photos.batches(indices, options.batch_size,
                          shard=hosts.shard()) as stream:
        part = measuring.collect(
            lambda batch: _measured(measure, batch, progress), stream,
            shared=hosts.count() > 1)
      photographs.gather_exclusions(photos.photos)
      if not writes:
        continue
      excluded = photos.photos.exclusions.by_index()
      part[_LEFT_OUT] = np.array(
          [excluded[i].reason for i in indices if i in excluded], str)
      files.write_bytes(_part_file(folder, indices), result.pack(
          {**part, _STAMP: np.array(stamp)}))
      parts[indices] = part
    progress.finish(size)
  return _joined([part for part in parts.values() if part is not None],
                 options.data) if writes else {}


def _kept(folder: pathlib.Path, photos: Photographs, indices: range
          ) -> dict[str, np.ndarray] | None:
  """A part that is there already; None where it has to be measured again.

  That is where its photographs or pictures have changed, and where it cannot
  be read. Parts of earlier versions have no stamp.
  """
  path = _part_file(folder, indices)
  if not path.exists():
    return None
  try:
    part = result.unpack(path)
  except UserError as error:
    print(f'measured again: {error}')
    return None
  return part if part.pop(_STAMP, None) == photos.stamp(indices) else None


def _part_file(folder: pathlib.Path, indices: range) -> pathlib.Path:
  return folder / f'{indices.start:08d}.npz'


def _joined(parts: Sequence[Mapping[str, np.ndarray]], data: str
            ) -> dict[str, np.ndarray]:
  """Parts put together; UserError where there is no photograph in them."""
  joined = {name: np.concatenate([part[name] for part in parts])
            for name in parts[0]}
  if not len(joined['index']):
    left_out = joined[_LEFT_OUT]
    raise UserError(f'data={data}: no photograph can be used: '
                    f'{len(left_out)} were left out, the first: {left_out[0]}')
  return joined


def _measured(measure: measuring.Measure, batch: Mapping[str, np.ndarray],
              progress: Progress) -> dict[str, Any]:
  progress.add(int(batch['padding_mask'].sum()) * hosts.count())
  measured = dict(jax.device_get(measure(batch)))
  if 'picture' in batch:
    measured[_LIGHTNESS] = jax.device_get(
        _lightness_difference(batch['picture'], batch['image']))
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
            weights: Mapping[str, str], options: EvaluateOptions
            ) -> protocol.Record:
  source = photos.photos.source
  return protocol.Record(
      protocol=photos.protocol, data=options.data,
      photographs=tuple(source.label(int(i)) for i in measured['index']),
      pixels=listing.set_digest(row.tobytes() for row in measured['digest']),
      num_proposals=options.num_proposals, num_samples=options.num_samples,
      num_draws=options.num_draws, seed=options.seed, density=_density(judged),
      left_out=tuple(map(str, measured[_LEFT_OUT])),
      num_grey=int((measured['source_chroma'] < _GREY_CHROMA).sum()),
      near_duplicates=None if pairs is None else tuple(
          f'{pair.test_label} and {pair.train_label}: {pair.distance} bits'
          for pair in pairs),
      drops_near_duplicates=options.drop_near_duplicates, judged=judged.name,
      weights=weights[''] if judged.colorizer else '',
      networks={name: one for name, one in weights.items() if name},
      warnings=() if photos.paired is None else tuple(pairing.doubts(
          photos.paired, measured['index'], measured[_LIGHTNESS],
          image_size=photos.protocol.image_size, fit=photos.protocol.fit)))


def _density(judged: Judged) -> str:
  if judged.colorizer is None or judged.colorizer.log_prob is None:
    return ''
  assert judged.network_size is not None
  height, width = judged.colorizer.event_shape((judged.network_size,) * 2)
  kind = judged.colorizer.log_prob_kind.replace('_', ' ')
  return f'{height} x {width}, {kind}'


def _train_photographs(options: EvaluateOptions) -> Screen | None:
  """Where near-duplicates are looked for, None if that is not asked for."""
  if options.train_data is None:
    return None
  return photographs.open_photos(options.train_data, options.photos, train=True)


def _without(measured: Mapping[str, np.ndarray], dropped: Collection[int],
             options: EvaluateOptions) -> dict[str, np.ndarray]:
  """The statistics of all photographs but some."""
  keep = ~np.isin(measured['index'], sorted(dropped))
  if not keep.any():
    raise UserError(f'data={options.data}: all photographs are in '
                    f'train_data={options.train_data} too')
  return {name: rows if name == _LEFT_OUT else rows[keep]
          for name, rows in measured.items()}
