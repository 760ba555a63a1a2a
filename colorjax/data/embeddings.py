"""A cache of the embeddings that a frozen network computes of photographs.

Each combination of photographs, network and size has a cache folder of its own,
named by a hash of them. A change of the network or of the photographs leads to
another folder, so no cache is overwritten. `embedding_files` describes the
files.

A process may be killed at any moment; the next one continues where it stopped.
The embedding is computed from the whole photograph, made square as for
evaluation, and shared by all random crops of it.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from colorjax.data import embedding_files, pipeline
from colorjax.data.engines import Batch, BatchStream
from colorjax.data.progress import Progress
from colorjax.data.screening import Screen
from colorjax.data.source import Source
from colorjax.errors import UserError
from colorjax.photo import UnreadablePhoto

_VERSION = 1  # of the file format; part of the hash
_NUM_SAMPLED = 64  # photographs whose pixels are part of the hash

Embed = Callable[[Batch], np.ndarray]
"""`batch -> [B, E]`; rows of padding are ignored and need not be finite."""


def attach(stream: BatchStream, table: np.ndarray) -> BatchStream:
  """Adds the entry 'embedding' to each batch of a stream.

  Args:
    stream: batches with 'index'; it is closed when the result is closed.
    table: the embeddings that `compute` returned for the same source, [N, E].

  Returns:
    The batches with 'embedding', float32 [B, E], 0 for padding.
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
  """Returns the embeddings of all photographs; computes those not yet cached.

  Args:
    photos: the photographs; those that the screen leaves out are not embedded.
    embed: the network, called with batches of `batch_size` rows; the last batch
      is padded.
    channels: E, the size of an embedding.
    network: everything that `embed` depends on, as JSON values: the name of the
      network, the `fingerprint` of its weights, its settings.
    directory: the folder that holds the caches.
    batch_size: photographs in a batch.
    image_size: side of the square images given to `embed`, in pixels.
    fit: 'crop' or 'squash', see augment.fit_square.
    engine: as in `pipeline.train_stream`.
    num_threads: as in `pipeline.train_stream`.
    report: called with lines about the progress.

  Returns:
    float32 [N, E], memory-mapped and read-only. Rows of photographs that were
    left out are 0.

  Raises:
    UserError: the folder cannot be written, a file in it is damaged, or an
      embedding is not finite.
    UnreadablePhoto: a photograph cannot be read, and the screen does not skip
      unreadable photographs.
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
        with pipeline.eval_stream(
            photos, batch_size=batch_size, image_size=image_size, fit=fit,
            indices=missing.tolist(), engine=engine, num_threads=num_threads
        ) as stream:
          _fill(rows, done, stream, embed,
                Progress(photos.source.name, missing.size, 'embeddings',
                         report, note=f', cached in {folder}'),
                photos.source.label)
  except OSError as error:
    raise UserError(
        f'cannot write embeddings to {folder}: {error.strerror or error}; '
        'choose another folder with embedding_dir=FOLDER, or use '
        'embeddings=computed') from error
  rows.flags.writeable = False
  return rows


def fingerprint(tree: Any) -> str:
  """Computes a SHA-256 of the names, shapes and values of a tree of arrays.

  Args:
    tree: nested mappings of arrays; the order of the entries does not matter.

  Returns:
    64 hexadecimal digits.
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
  """Returns the default folder for caches, beside the photographs.

  Args:
    data: a specification of photographs, see `sources.parse`.
    data_dir: as in `sources.parse`.

  Returns:
    `PATH.embeddings` for `folder:PATH` and `prepared:PATH`, a folder inside the
    TFDS data directory for `tfds:NAME`, and None for `bundled`. The folder may
    not exist yet.
  """
  kind, _, rest = data.partition(':')
  if kind == 'prepared':
    # A split may follow the path, and it may contain colons.
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
  """Whether files may be created in a folder; creates the folder if possible.

  A folder whose permission bits allow no writing counts as read-only even for
  the superuser.
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
  """Identifies a set of photographs, independent of where they are stored.

  Uses the names of all photographs and the pixels of _NUM_SAMPLED. A photograph
  that is replaced under the same name goes unnoticed unless it is sampled.
  """
  sampled = np.linspace(0, source.size - 1, min(source.size, _NUM_SAMPLED))
  digest = hashlib.sha256()
  for index in sampled.round().astype(int):
    try:
      pixels = source.read(int(index))
    except UnreadablePhoto:
      continue
    digest.update(str(pixels.shape).encode() + pixels.tobytes())
  description = {'count': source.size, 'sample': digest.hexdigest()}
  if not source.prefers_tf_data:  # A name in TFDS costs reading a record.
    names = '\n'.join(source.label(i) for i in range(source.size))
    description['names'] = hashlib.sha256(names.encode()).hexdigest()
  return description


def _hash_of(key: Mapping[str, Any]) -> str:
  text = json.dumps(key, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def _fill(rows: np.memmap, done: np.memmap, stream: BatchStream, embed: Embed,
          progress: Progress, label: Callable[[int], str]) -> None:
  """Computes the rows of the stream's photographs and marks them as done."""
  for batch in stream:
    is_photo = batch['padding_mask'] > 0
    index = batch['index'][is_photo]
    if index.size:
      vectors = np.asarray(embed(batch))[is_photo]
      bad = index[~np.isfinite(vectors).all(-1)]
      if bad.size:
        raise UserError(f'the embedding of {label(int(bad[0]))} is not finite: '
                        'check the weights of the backbone')
      rows[index] = vectors
      rows.flush()
      done[index] = True
      done.flush()
    progress.add(len(is_photo))
  progress.finish(int(done.sum()))
