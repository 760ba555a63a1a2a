"""What a frozen network sees in each photograph, computed once and kept.

A cache is a folder of its own for each combination of photographs, network and
size, named by a hash of them: another network or another photograph finds
another folder, and nothing is ever overwritten (`embedding_files` has its
files).

Rows reach the disk before they are marked, so a process may be killed at any
moment and the next one goes on. The vector is that of the whole photograph,
made square as for evaluation: random crops of it share it.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from colorjax.data import augment, embedding_files, engines
from colorjax.data.engines import Batch, BatchStream
from colorjax.data.progress import Progress
from colorjax.data.screening import Screen
from colorjax.data.source import Source
from colorjax.errors import UserError
from colorjax.photo import UnreadablePhoto

_VERSION = 1  # of the meaning of the files; part of the hash
_SAMPLE = 64

Embed = Callable[[Batch], np.ndarray]
"""`batch -> [B, E]`; rows of padding may hold anything finite or not."""


def attach(stream: BatchStream, table: np.ndarray) -> BatchStream:
  """The same batches with 'embedding'.

  Args:
    stream: batches with 'index'; closed with the result.
    table: what `compute` returned for their source, [N, E].

  Returns:
    Batches with 'embedding' float32 [B, E] besides, 0 for padding.
  """
  def batches():
    with stream:
      for batch in stream:
        index = batch['index']
        is_photo = index >= 0
        vectors = np.zeros((len(index), table.shape[1]), np.float32)
        vectors[is_photo] = table[index[is_photo]]
        yield {**batch, 'embedding': vectors}

  return BatchStream(batches())


def compute(photos: Screen, embed: Embed, *, channels: int,
            network: Mapping[str, Any], directory: str | os.PathLike,
            batch_size: int, image_size: int, fit: str = 'crop',
            engine: str = 'auto', num_threads: int | None = None,
            report: Callable[[str], None] = print) -> np.ndarray:
  """The embeddings of all photographs, computed where they are not kept yet.

  Args:
    photos: the photographs; those that the screen leaves out have no row.
    embed: the network, called with batches of `batch_size` rows, the last one
      padded.
    channels: E.
    network: all that `embed` depends on, as JSON values: the name of the
      network, the `fingerprint` of its weights, its settings.
    directory: where caches are, each in a folder of its own.
    batch_size: photographs at a time.
    image_size: side of the squares that `embed` is given, in pixels.
    fit: 'crop' or 'squash', see augment.fit_square.
    engine: as in `pipeline.train_stream`.
    num_threads: as in `pipeline.train_stream`.
    report: is told of progress, a line at a time.

  Returns:
    float32 [N, E], mapped from the file and read-only; rows of photographs
    that were left out are 0.

  Raises:
    UserError: the folder cannot be written, a file in it is damaged, or the
      network gives numbers that are not finite.
    UnreadablePhoto: a photograph cannot be read and the screen does not skip.
  """
  key = {'version': _VERSION, 'photographs': _describe(photos.source),
         'image_size': image_size, 'fit': fit, 'channels': channels,
         'network': dict(network)}
  folder = pathlib.Path(directory).expanduser() / _hash_of(key)
  shape = photos.source.size, channels
  rows = embedding_files.finished(folder, shape)
  if rows is not None:
    return rows
  try:
    with embedding_files.locked(folder, report):
      embedding_files.write_record(folder, {'of': photos.source.name, **key})
      rows, done = embedding_files.open_writable(folder, shape)
      missing = np.flatnonzero(~done)
      if missing.size:
        with _squares(photos, missing, batch_size, image_size, fit, engine,
                      num_threads) as stream:
          _fill(rows, done, stream, embed,
                Progress(photos.source.name, missing.size, 'embeddings',
                         report, note=f', kept in {folder}'),
                photos.source.label)
  except OSError as error:
    raise UserError(
        f'cannot keep embeddings in {folder}: {error.strerror or error}; '
        'choose a folder with embedding_dir=FOLDER, or '
        'embeddings=computed') from error
  rows.flags.writeable = False
  return rows


def fingerprint(tree: Any) -> str:
  """SHA-256 over the names, shapes and numbers of nested mappings of arrays.

  The order in which a mapping holds its entries does not matter.
  """
  digest = hashlib.sha256()

  def add(name: str, node: Any) -> None:
    if isinstance(node, Mapping):
      for key in sorted(node):
        add(f'{name}/{key}', node[key])
      return
    array = np.ascontiguousarray(node)
    digest.update(f'{name} {array.dtype} {array.shape}\n'.encode())
    digest.update(array.tobytes())

  add('', tree)
  return digest.hexdigest()


def beside(data: str, *, data_dir: str | os.PathLike | None = None
           ) -> pathlib.Path | None:
  """The folder for caches that lies beside the photographs.

  Args:
    data: what `sources.parse` understands.
    data_dir: as there.

  Returns:
    `PATH.embeddings` for `folder:PATH` and `prepared:PATH`, a folder of TFDS's
    own data directory for `tfds:NAME`; None where the photographs lie in no
    folder of the user's. It may not exist yet.
  """
  kind, _, rest = data.partition(':')
  if kind == 'prepared':
    # What follows the folder is a split, which may hold colons itself.
    while ':' in rest and not pathlib.Path(rest).expanduser().is_dir():
      rest = rest.rpartition(':')[0]
  if kind in ('folder', 'prepared'):
    root = pathlib.Path(rest).expanduser().resolve()
    return root.with_name(f'{root.name}.embeddings')
  if kind == 'tfds':
    home = data_dir or os.environ.get('TFDS_DATA_DIR', '~/tensorflow_datasets')
    return pathlib.Path(home).expanduser() / 'embeddings'
  return None


def is_writable(folder: pathlib.Path) -> bool:
  """Whether files may be made in a folder, which is made itself if need be.

  A folder whose permissions let nobody write is meant to stay as it is: the
  superuser could write to it, and does not.
  """
  nearest = folder
  while not nearest.exists() and nearest != nearest.parent:
    nearest = nearest.parent
  try:
    if not nearest.stat().st_mode & 0o222:
      return False
    folder.mkdir(parents=True, exist_ok=True)
  except OSError:
    return False
  return os.access(folder, os.W_OK | os.X_OK)


def _describe(source: Source) -> dict[str, Any]:
  """What tells photographs from others, wherever they lie.

  The names of all, and the pixels of some: a photograph that is replaced by
  another under its old name is noticed only if it is among these.
  """
  some = np.linspace(0, source.size - 1, min(source.size, _SAMPLE))
  sample = hashlib.sha256()
  for index in some.round().astype(int):
    try:
      pixels = source.read(int(index))
    except UnreadablePhoto:
      continue
    sample.update(str(pixels.shape).encode() + pixels.tobytes())
  description = {'count': source.size, 'sample': sample.hexdigest()}
  if not source.prefers_tf_data:  # There a name costs the reading of a record.
    names = '\n'.join(source.label(i) for i in range(source.size))
    description['names'] = hashlib.sha256(names.encode()).hexdigest()
  return description


def _hash_of(key: Mapping[str, Any]) -> str:
  text = json.dumps(key, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def _squares(photos: Screen, indices: np.ndarray, batch_size: int,
             image_size: int, fit: str, engine: str, num_threads: int | None
             ) -> BatchStream:
  """Batches of some of the photographs, made square as for evaluation."""
  padding: engines.Row = {
      'image': np.zeros((image_size, image_size, 3), np.uint8),
      'index': np.array(-1, np.int32)}

  def load(number):
    index = int(indices[number]) if number < len(indices) else -1
    pixels = photos.read(index) if index >= 0 else None
    if pixels is None:
      return padding
    return {'image': augment.fit_square(pixels, image_size, fit),
            'index': np.array(index, np.int32)}

  plan = engines.Plan(load=load, padding=padding, batch_size=batch_size,
                      start=0, stop=-(-len(indices) // batch_size))
  return engines.stream(plan, engine=engine, num_threads=num_threads,
                        prefers_tf_data=photos.source.prefers_tf_data)


def _fill(rows: np.memmap, done: np.memmap, stream: BatchStream, embed: Embed,
          progress: Progress, label: Callable[[int], str]) -> None:
  for batch in stream:
    is_photo = batch['padding_mask'] > 0
    index = batch['index'][is_photo]
    if index.size:
      vectors = np.asarray(embed(batch))[is_photo]
      bad = index[~np.isfinite(vectors).all(-1)]
      if bad.size:
        raise UserError(f'the embedding of {label(int(bad[0]))} is not finite: '
                        'look at the weights of the backbone')
      rows[index] = vectors
      rows.flush()
      done[index] = True
      done.flush()
    progress.add(len(is_photo))
  progress.finish(int(done.sum()))
