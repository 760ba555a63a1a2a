"""Runs an evaluation: measures a subject and writes the result to disk.

Photographs are measured in parts of fixed size, each of which is written when
it is finished. An evaluation that was stopped is resumed with the next part,
with any batch size. A part whose photographs or pictures have changed is
measured again.
"""

import dataclasses
import json
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
from colorjax.film import held_out
from colorjax.runs import evaluation_report, photographs
from colorjax.runs.subject import (
  EvaluateOptions,
  Photographs,
  Subject,
  load_networks,
  open_photographs,
  open_subject,
)
from colorjax.runs.workdir import claim_workdir

__all__ = ['EvaluateOptions', 'evaluate']

_PART = 256  # photographs per part
_PARTS = 'parts'  # folder of the parts in the work directory
_WEIGHTS_FILE = 'weights.json'
_GREY_CHROMA = 2.0  # a photograph with a lower `screening.chroma` is grey
_PALE_CHROMA = 10.0  # mean chroma, noise included, that no grey photo exceeds

# Arrays of a part that are not metrics.
_LEFT_OUT = 'left_out'  # the only one without a row for each photograph
_STAMP = 'stamp'  # `Photographs.stamp` of the part
_LIGHTNESS = 'lightness_difference'  # for pictures of another program

# Options that may differ when an evaluation is resumed.
_HARMLESS = frozenset({'workdir', 'data_dir', 'engine', 'num_threads',
                       'batch_size', 'report_photos'})
# Options that may also differ as long as there is no result.
_APPLIED_LAST = frozenset({'train_data', 'drop_near_duplicates'})

_lightness_difference = jax.jit(pairing.lightness_difference)


def evaluate(options: EvaluateOptions, *, configuration: str | None = None,
             command: str = '') -> result.EvaluationResult:
  """Measures a subject and writes the result and its report.

  Args:
    options: what is measured, and how.
    configuration: text for `claim_workdir`, one `--name=value` per line, that a
      resumed evaluation must agree with. None: `options`.
    command: the command line that repeats the evaluation, for the report.

  Returns:
    The result; it is read from disk if this evaluation is already finished.

  Raises:
    UserError: an option is wrong or names something that does not exist; the
      work directory holds another evaluation or cannot be written; or the
      photographs, pictures or weights of a finished evaluation have changed.
  """
  parallel.check_batch_size(options.batch_size)
  subject = open_subject(options)
  networks = load_networks(options)
  photos = open_photographs(options, subject)
  train = _train_photographs(options)
  workdir = options.directory
  is_finished = hosts.on_main((workdir / result.METRICS_FILE).exists)
  harmless = _HARMLESS if is_finished else _HARMLESS | _APPLIED_LAST
  if configuration is None:
    configuration = ''.join(_lines(options))
  with claim_workdir(workdir, configuration, harmless=harmless):
    weights = {name: embeddings.fingerprint(jax.device_get(tree))
               for name, tree in {'': subject.variables, **networks}.items()}
    if is_finished:
      _check_weights(workdir, weights)
      _check_photographs(workdir, photos)
      print(f'{workdir}: this evaluation is already finished; choose another '
            'workdir to start a new one')
      return result.load(workdir)
    if hosts.is_main():
      _write_weights(workdir, weights)
    measured = _measure(workdir / _PARTS, subject, photos, networks, options)
    if not hosts.is_main():
      hosts.barrier('reported')
      return result.load(workdir)
    pairs = None if train is None else near_duplicates.find(
        photos.photos, train, num_threads=options.photos.num_threads)
    if options.drop_near_duplicates:
      measured = _without(
          measured, {pair.test_index for pair in pairs or ()}, options)
    record = _record(subject, photos, measured, pairs, weights, options)
    statistics = {name: values for name, values in measured.items()
                  if name in catalogue.METRICS}
    finished = result.EvaluationResult(
        record, statistics, catalogue.summarize(statistics))
    written = evaluation_report.write(
        workdir, subject, photos, finished, measured['index'], options,
        configuration=configuration, command=command)
    result.write(workdir, finished)
    evaluation_report.say(workdir, finished, written)
    _say_missing_networks(networks)
    hosts.barrier('reported')
  return finished


def _lines(options: Any) -> Iterator[str]:
  """Formats a dataclass and nested dataclasses, one --name=value per line."""
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
    print(f'\nNot measured, because weights are missing: '
          f'{", ".join(sorted(missing))} (give their files by lpips_alex, '
          'lpips_vgg, inception_fid, inception_torchvision)')


def _write_weights(workdir: pathlib.Path, weights: Mapping[str, str]) -> None:
  """Records the fingerprints of the weights that are measured.

  Raises:
    UserError: the evaluation was started with other weights.
  """
  folder = workdir / _PARTS
  try:
    folder.mkdir(exist_ok=True)
  except OSError as error:
    raise UserError(
        f'{folder}: cannot be made: {error.strerror or error}') from error
  if not _check_weights(workdir, weights):
    files.write_text(folder / _WEIGHTS_FILE, _weights_text(weights))


def _check_weights(workdir: pathlib.Path, weights: Mapping[str, str]) -> bool:
  """Returns whether fingerprints of the weights have been recorded.

  Raises:
    UserError: the evaluation was started with other weights.
  """
  path = workdir / _PARTS / _WEIGHTS_FILE
  if not path.exists():
    return False
  if files.read_text(path) != _weights_text(weights):
    raise UserError(f'{workdir} was started with other weights: those of the '
                    'checkpoint or of a network of the metrics have changed; '
                    'choose another workdir')
  return True


def _weights_text(weights: Mapping[str, str]) -> str:
  return json.dumps(weights, sort_keys=True, indent=2)


def _check_photographs(workdir: pathlib.Path, photos: Photographs) -> None:
  """Raises UserError if photographs of a finished evaluation have changed."""
  size = photos.photos.source.size
  # If a user has deleted the parts, there is nothing to compare with.
  parts = sorted((workdir / _PARTS).glob('*.npz'))
  bounds = [*(int(path.stem) for path in parts), size]
  if any(start >= size or _stamp_of(path) not in (
      None, photos.stamp(range(start, stop))) for path, start, stop in zip(
          parts, bounds, bounds[1:], strict=False)):
    raise UserError(
        f'{workdir} holds a finished evaluation, and photographs or pictures '
        f'of {photos.photos.source.name} have been added, removed or changed '
        'since; choose another workdir')


def _stamp_of(path: pathlib.Path) -> str | None:
  """The stamp of a part; None if it has none or cannot be read."""
  try:
    with path.open('rb') as raw, np.load(raw) as file:
      return str(file[_STAMP]) if _STAMP in file.files else None
  except (OSError, ValueError, zipfile.BadZipFile, zlib.error, EOFError):
    return None


def _ranges(photos: Photographs) -> list[range]:
  """The numbers of the photographs of each part."""
  size = photos.photos.source.size
  return [range(start, min(start + _PART, size))
          for start in range(0, size, _PART)]


def _measure(folder: pathlib.Path, subject: Subject, photos: Photographs,
             networks: Mapping[str, Any], options: EvaluateOptions
             ) -> dict[str, np.ndarray]:
  """Measures all photographs, or reads what has been measured already.

  If several processes measure, all must call this function.

  Returns:
    The statistics of all metrics, and 'index', 'digest' and 'source_chroma',
    with a row for each photograph; _LEFT_OUT, the reasons for those left out.
    {} if this is not the main process.
  """
  size = photos.photos.source.size
  writes = hosts.is_main()
  parts = {indices: _read_part(folder, photos, indices)
           for indices in _ranges(photos)} if writes else {}
  missing = [range(*bounds) for bounds in hosts.on_main(
      lambda: [(indices.start, indices.stop)
               for indices, part in parts.items() if part is None])]
  if missing:
    measure = measuring.compiled(
        subject.answer, subject.variables, networks,
        few_at_a_time=subject.colorizer is None and not networks)
    progress = Progress(subject.name, size, 'photographs', print,
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


def _read_part(folder: pathlib.Path, photos: Photographs, indices: range
               ) -> dict[str, np.ndarray] | None:
  """Reads a part; None if it has to be measured.

  It has to be measured if it does not exist or cannot be read, if it has no
  stamp (an earlier version wrote it), or if its photographs or pictures have
  changed.
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
  """Concatenates all parts; raises UserError if they hold no photograph."""
  joined = {name: np.concatenate([part[name] for part in parts])
            for name in parts[0]}
  if not len(joined['index']):
    left_out = joined[_LEFT_OUT]
    raise UserError(f'data={data}: no photograph can be used: all '
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
      # `screening.chroma` is slow, so it is computed for pale photographs only.
      'source_chroma': np.array([
          screening.chroma(image) if pale else np.inf for image, pale in zip(
              batch['image'], measured['chroma_truth'] < _PALE_CHROMA,
              strict=True)])}


def _record(subject: Subject, photos: Photographs,
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
      num_draws=options.num_draws, seed=options.seed, density=_density(subject),
      left_out=tuple(map(str, measured[_LEFT_OUT])),
      num_grey=int((measured['source_chroma'] < _GREY_CHROMA).sum()),
      near_duplicates=None if pairs is None else tuple(
          f'{pair.test_label} and {pair.train_label}: {pair.distance} bits'
          for pair in pairs),
      drops_near_duplicates=options.drop_near_duplicates, judged=subject.name,
      weights=weights[''] if subject.colorizer else '',
      networks={name: one for name, one in weights.items() if name},
      film=(f'{options.film}, version {held_out.VERSION}'
            if options.film else ''),
      warnings=() if photos.paired is None else tuple(pairing.doubts(
          photos.paired, measured['index'], measured[_LIGHTNESS],
          image_size=photos.protocol.image_size, fit=photos.protocol.fit)))


def _density(subject: Subject) -> str:
  """Describes what `log_prob` of a method is a density of; '' without one."""
  colorizer = subject.colorizer
  if colorizer is None or colorizer.log_prob is None:
    return ''
  assert subject.network_size is not None
  shape = subject.network_size, subject.network_size
  height, width = colorizer.event_shape(shape)
  kind = colorizer.density_kind(shape).replace('_', ' ')
  return f'{height} x {width}, {kind}'


def _train_photographs(options: EvaluateOptions) -> Screen | None:
  """The photographs to search for near-duplicates; None if not requested."""
  if options.train_data is None:
    return None
  return photographs.open_photos(options.train_data, options.photos, train=True)


def _without(measured: Mapping[str, np.ndarray], dropped: Collection[int],
             options: EvaluateOptions) -> dict[str, np.ndarray]:
  """The statistics without those of some photographs."""
  keep = ~np.isin(measured['index'], sorted(dropped))
  if not keep.any():
    raise UserError(f'data={options.data}: all photographs are also in '
                    f'train_data={options.train_data}; none is left to '
                    'measure')
  return {name: rows if name == _LEFT_OUT else rows[keep]
          for name, rows in measured.items()}
