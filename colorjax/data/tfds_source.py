"""Photographs of TFDS data sets, prepared as tfrecord or for random access.

`photo` decodes the photographs. The decoder of TFDS ignores EXIF orientation
and color profiles, and stops at the first damaged file. Nothing is downloaded,
and TensorFlow is not imported.
"""

import difflib
import hashlib
import os
import pathlib
import re
from collections.abc import Callable, Iterable
from typing import Any

import tensorflow_datasets as tfds

from colorjax import photo
from colorjax.data import tfrecord
from colorjax.data.source import Source, SourceError, Stamp, stamp_of_file

_FILE_NAMES = ('file_name', 'filename', 'image/filename')

# `name:1.0.0:train` and `name:train[:90%]`: a version, then a split.
_NAME = re.compile(r'(?P<name>[^:]*(:\d+\.[\d*]+\.[\d*]+)?)(:(?P<split>.+))?')
# A split after a path begins at the last colon and must look like a split.
_PATH = re.compile(r'(?P<path>.+?)(:(?P<split>[A-Za-z_]\w*(\[[^/]*\])?'
                   r'(\+[A-Za-z_]\w*(\[[^/]*\])?)*))?')


def from_name(spec: str, *, train: bool,
              data_dir: str | os.PathLike | None = None) -> Source:
  """Opens the photographs of a registered, prepared TFDS data set.

  Args:
    spec: `NAME[/CONFIG][:VERSION][:SPLIT]`, as TFDS writes them.
    train: chooses the split if `spec` has none: `train` if True, else
      `validation`, or `test` if there is no validation split.
    data_dir: folder of the prepared data sets; None for TFDS's default.

  Returns:
    The source.

  Raises:
    SourceError: the data set or split does not exist, is not prepared, is
      damaged, or does not hold exactly one color photograph per example.
  """
  match = _NAME.fullmatch(spec)
  if not match or not match['name']:
    raise SourceError(
        f'tfds:{spec} must have the form tfds:NAME[/CONFIG][:SPLIT]')
  name = match['name']
  try:
    builder = tfds.builder(name, data_dir=data_dir)
  except tfds.core.DatasetNotFoundError:
    # Looking up community data sets would need the network.
    near = difflib.get_close_matches(re.split('[/:]', name)[0], set(
        tfds.list_builders(with_community_datasets=False)))
    hint = f'; did you mean {" or ".join(near)}?' if near else ''
    raise SourceError(f'tfds:{spec}: TFDS has no data set {name}{hint}'
                      ) from None
  except Exception as error:
    # The code of a data set may raise anything.
    raise SourceError(f'tfds:{spec}: {_one_line(error)}') from error
  return _open(builder, f'tfds:{name}', match['split'], train=train,
               unprepared=_how_to_prepare(builder, name, data_dir))


def from_folder(spec: str, *, train: bool) -> Source:
  """Opens the photographs in the folder of a prepared TFDS data set.

  Args:
    spec: `PATH[:SPLIT]`; the folder must hold dataset_info.json.
    train: as in `from_name`.

  Returns:
    The source.

  Raises:
    SourceError: as in `from_name`.
  """
  match = _PATH.fullmatch(spec)
  if not match:
    raise SourceError(
        f'prepared:{spec} must have the form prepared:PATH[:SPLIT]')
  path, split = match['path'], match['split']
  if pathlib.Path(spec).expanduser().is_dir():
    path, split = spec, None
  folder = pathlib.Path(path).expanduser()
  try:
    builder = tfds.builder_from_directory(folder)
  except OSError as error:
    if not folder.is_dir():
      raise SourceError(
          f'prepared:{spec}: the folder {folder} does not exist') from error
    below = sorted(str(p.parent) for depth in ('*', '*/*')
                   for p in folder.glob(f'{depth}/dataset_info.json'))
    hint = f'; use {" or ".join(below)}' if below else ''
    raise SourceError(
        f'prepared:{spec}: {folder} holds no readable dataset_info.json{hint}'
    ) from error
  except Exception as error:
    raise SourceError(f'prepared:{spec}: {_one_line(error)}') from error
  return _open(builder, f'prepared:{path}', split, train=train,
               unprepared='it holds no prepared data')


def _open(builder: tfds.core.DatasetBuilder, name: str, split: str | None, *,
          train: bool, unprepared: str) -> Source:
  """The source of one split of a data set.

  Args:
    builder: the data set.
    name: its name in messages.
    split: the split, or None to choose it by `train`.
    train: as in `from_name`.
    unprepared: error message for a data set that is not prepared.
  """
  image_key = _image_feature(builder, name)
  split = _choose_split(builder, name, split, train=train)
  name = f'{name}:{split}'
  fetch, size = _random_access(builder, name, split, unprepared)
  file_key = next((key for key in _FILE_NAMES if key in builder.info.features),
                  None)

  def fetch_named(index):
    try:
      example = fetch(index)
      return example[image_key], _text(example[file_key]) if file_key else ''
    except Exception as error:
      # A wrong checksum, a damaged protobuf, or an error of the system.
      raise photo.UnreadablePhoto(
          f'{name}[{index}]: damaged: {_one_line(error)}') from error

  def fetch_file(index):
    data, file_name = fetch_named(index)
    return data, f'{name}[{index}] {file_name}'.rstrip()

  def read(index):
    return photo.to_rgb8(photo.read_bytes(*fetch_file(index)))

  def read_reduced(index, reduce):
    data, place = fetch_file(index)
    return photo.read_reduced(data, place, reduce)

  def label(index):
    place = f'{split}[{index}]'
    try:
      return fetch_named(index)[1] or place
    except photo.UnreadablePhoto:
      return place

  # A data set is prepared as a whole, so the stamp covers all its files.
  # The folder is left out, so that a moved data set keeps its stamps.
  paths = sorted(pathlib.Path(builder.data_dir).glob('*'))
  stamps = [stamp_of_file(path) for path in paths]
  # Hashed, because there may be a thousand files, and a stamp for each of a
  # million photographs.
  prepared = _hash(f'{path.name} {stamp.content}'
                   for path, stamp in zip(paths, stamps, strict=True))
  modified = _hash(stamp.modified for stamp in stamps)

  return Source(name=name, size=size, read=read, label=label,
                read_reduced=read_reduced,
                stamp=lambda index: Stamp(f'{split}[{index}] of {prepared}',
                                          modified),
                prefers_tf_data=True)


def _hash(texts: Iterable[str]) -> str:
  return hashlib.sha256('\n'.join(texts).encode()).hexdigest()


def _random_access(builder: tfds.core.DatasetBuilder, name: str, split: str,
                   unprepared: str) -> tuple[Callable[[int], Any], int]:
  """Returns `index -> example`, with images still encoded, and the size."""
  features = builder.info.features
  decoders = {key: tfds.decode.SkipDecoding()
              for key, feature in features.items()
              if isinstance(feature, tfds.features.Image)}
  try:
    examples = builder.as_data_source(split, decoders=decoders)
    return lambda index: examples[index], len(examples)
  except NotImplementedError:
    pass  # Prepared as tfrecord, the default of TFDS, or not prepared.
  except Exception as error:
    raise SourceError(f'{name}: {_one_line(error)}') from error
  if not builder.info.splits:
    raise SourceError(f'{name}: {unprepared}')
  if builder.info.file_format != tfds.core.FileFormat.TFRECORD:
    raise SourceError(f'{name} is prepared as {builder.info.file_format.value};'
                      ' prepare it again as tfrecord or array_record')
  parts = [tfrecord.Part(str(part.filename), part.skip, part.examples_in_shard
                         - part.skip if part.take == -1 else part.take,
                         part.examples_in_shard)
           for part in builder.info.splits[split].file_instructions]
  try:
    records = tfrecord.Records(parts)
  except (OSError, tfrecord.DamagedRecord) as error:
    raise SourceError(
        f'{name}: {_one_line(error)}; prepare it again') from error
  return lambda index: features.deserialize_example_np(
      records[index], decoders=decoders), len(records)


def _image_feature(builder: tfds.core.DatasetBuilder, name: str) -> str:
  """Key of the only feature that is a color photograph."""
  features = builder.info.features
  if not isinstance(features, tfds.features.FeaturesDict):
    raise SourceError(f'{name} has no photographs among its features')
  keys = [key for key, feature in features.items()
          if isinstance(feature, tfds.features.Image)
          and not isinstance(feature, tfds.features.LabeledImage)
          and feature.shape[-1] in (3, 4)]
  if len(keys) == 1:
    return keys[0]
  if keys:
    raise SourceError(f'{name} has several photographs in each example '
                      f'({", ".join(keys)}); use a data set with one')
  raise SourceError(f'{name} has no color photograph among its features '
                    f'({", ".join(features)})')


def _choose_split(builder: tfds.core.DatasetBuilder, name: str,
                  split: str | None, *, train: bool) -> str:
  """The split to use; checks it if the data set is prepared."""
  # A data set that is not prepared has no list of splits.
  known = list(builder.info.splits)
  if split:
    try:
      if known:
        _ = builder.info.splits[split]
    except Exception as error:
      # ValueError, KeyError or AssertionError, depending on the mistake.
      raise SourceError(f'{name} has no split {split}; it has '
                        f'{", ".join(known)} and parts of them such as '
                        f'{known[0]}[:90%]') from error
    return split
  wanted = ('train',) if train else ('validation', 'test')
  for candidate in wanted:
    if candidate in known or not known:
      return candidate
  raise SourceError(f'{name} has no split {" or ".join(wanted)}; it has '
                    f'{", ".join(known)}: choose one, or a part of one, for '
                    f'example {name}:{known[0]}[90%:]')


def _how_to_prepare(builder: tfds.core.DatasetBuilder, name: str,
                    data_dir: str | os.PathLike | None) -> str:
  """End of the error message for a data set that is not prepared."""
  argument = f', data_dir={str(data_dir)!r}' if data_dir else ''
  root = pathlib.Path(data_dir or tfds.core.constants.DATA_DIR).expanduser()
  manual = (f'put its archives into {root}/downloads/manual and '
            if builder.MANUAL_DOWNLOAD_INSTRUCTIONS else '')
  # The command line of TFDS would need Apache Beam.
  return (f'not prepared in {builder.data_dir}, and colorjax downloads nothing:'
          f' {manual}run once: python -c "import tensorflow_datasets as tfds; '
          f'tfds.builder({name!r}{argument}).download_and_prepare()"')


def _text(value: Any) -> str:
  value = value.item() if hasattr(value, 'item') else value
  if isinstance(value, bytes):
    value = value.decode('utf-8', 'backslashreplace')
  return ' '.join(str(value).split())


def _one_line(error: Exception) -> str:
  lines = str(error).strip().splitlines()
  return lines[0] if lines else type(error).__name__
