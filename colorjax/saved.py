"""Loads trained methods, and packs them into model files.

A model file is a trained method in a single safetensors file: its variables,
and its record as JSON in the metadata. Weights that are bit-identical to those
of a public file, such as a frozen pretrained encoder, are left out and are read
from that file when the model is loaded.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import safetensors
import safetensors.numpy

from colorjax import files, records
from colorjax.colorizer import Colorizer, Variables
from colorjax.errors import UserError
from colorjax.training import checkpoint, checkpoint_files, replicas

MODEL_SUFFIX = '.safetensors'
"""Ending of the name of a model file."""

DTYPES = ('float16', 'float32')
"""Types in which a model file may store weights."""

_RECORD, _OMITTED, _DIGEST = 'colorizer', 'omitted', 'sha256'


def load(path: pathlib.Path, *, replica: int | None = None
         ) -> tuple[Colorizer, Variables, int]:
  """Loads a trained method.

  Args:
    path: the work directory of its run, which holds `colorizer.json` and
      `checkpoints/`, or a model file. Nothing is changed.
    replica: number, from 0, of the replica of a run of several; None for a run
      of one model and for a model file.

  Returns:
    The method, its variables, and the side of its square input in pixels.

  Raises:
    UserError: the directory is not that of a run, its record cannot be used,
      it has no valid checkpoint, or the model file cannot be used; or there is
      no such replica, or none is chosen.
  """
  path = pathlib.Path(path)
  if path.suffix == MODEL_SUFFIX and not path.is_dir():
    if replica is not None:
      raise UserError(f'replica={replica}: a model file holds one model')
    record, colorizer, variables = _read_model(path)
  else:
    record, colorizer, variables = _read_run(path, replica)
  return colorizer, variables, record.image_size


def pack(workdir: pathlib.Path, path: pathlib.Path, *, dtype: str = 'float16',
         image_size: int | None = None,
         asking: Mapping[str, Any] | None = None,
         replica: int | None = None) -> list[str]:
  """Writes the method of a run to a model file, atomically.

  Args:
    workdir: work directory of the run.
    path: the file, whose name ends in MODEL_SUFFIX; it is replaced.
    dtype: type in which weights are stored, one of DTYPES.
    image_size: side of the network's input, in pixels, if it shall not be that
      of the training.
    asking: options (see `colorjax.colorizer`) with other values than in the
      run; None for none.
    replica: as in `load`.

  Returns:
    The names of the pretrained networks whose weights are not in the file.

  Raises:
    UserError: the run cannot be loaded, a weight is too large for the type, or
      the file cannot be written.
  """
  if path.suffix != MODEL_SUFFIX:
    raise UserError(f'{path}: the name of a model file ends in {MODEL_SUFFIX}')
  record, colorizer, variables = _read_run(
      pathlib.Path(workdir), replica)
  fields = dataclasses.replace(record, replicas=()).to_json()
  fields['image_size'] = image_size or record.image_size
  fields['asking'] = {**record.asking, **(asking or {})}
  leaves = checkpoint_files.flatten(variables)
  omitted, kept = [], dict(leaves)
  for name in colorizer.backbones:
    try:
      public = _public_weights(colorizer, name, variables)
    except UserError:
      continue  # The public file is not at hand, so its weights are packed too.
    same = {key for key, x in public.items()
            if np.array_equal(x, leaves[key])}
    if same:
      omitted.append(name)
      kept = {key: x for key, x in kept.items() if key not in same}
  arrays = {key: _stored(key, np.asarray(x), dtype)
            for key, x in kept.items()}
  # Hashed as stored: safetensors itself does not notice a flipped bit.
  metadata = {
      _RECORD: json.dumps(fields), _OMITTED: json.dumps(omitted),
      _DIGEST: checkpoint_files.fingerprint(checkpoint_files.describe(arrays))}
  files.write_bytes(path, safetensors.numpy.save(arrays, metadata=metadata))
  return omitted


def _read_run(workdir: pathlib.Path, replica: int | None = None
              ) -> tuple[records.Record, Colorizer, Variables]:
  """Loads the work directory of a run."""
  path = workdir / records.FILE
  if not path.is_file():
    raise UserError(
        f'{workdir} holds no {records.FILE}: give the work directory of a '
        f'training run, or a model file ({MODEL_SUFFIX})')
  record = records.Record.load(path)
  _check_replica(workdir, replica, record)
  colorizer = record.build()
  like = _shapes(record, colorizer)
  if replica is not None:
    like = replicas.shapes(like, len(record.replicas))
  variables = checkpoint.restore_variables(
      workdir, which=record.checkpoint, like=like)
  if replica is not None:
    variables = replicas.pick(variables, replica)
  return record, colorizer, variables


def _check_replica(workdir: pathlib.Path, replica: int | None,
                   record: records.Record) -> None:
  """Raises UserError unless the run has this replica."""
  count = len(record.replicas)
  if not count and replica is not None:
    raise UserError(f'replica={replica}: {workdir} has no replicas; leave '
                    'replica out')
  if count and (replica is None or not 0 <= replica < count):
    given = 'none is chosen' if replica is None else f'replica={replica}'
    raise UserError(f'{given}: {workdir} has {count} replicas; choose one of '
                    f'them with replica=0 to {count - 1}')


def _read_model(path: pathlib.Path
                ) -> tuple[records.Record, Colorizer, Variables]:
  """Loads a model file."""
  if not path.is_file():
    raise UserError(f'{path}: no such file')
  try:
    with safetensors.safe_open(path, framework='numpy') as file:
      metadata = file.metadata() or {}
      names = file.keys()
      leaves = {name: file.get_tensor(name) for name in names}
    fields = json.loads(metadata[_RECORD])
    omitted = json.loads(metadata[_OMITTED])
    digest = metadata[_DIGEST]
  except KeyError as error:
    raise UserError(
        f'{path} is not a model file of colorjax: its metadata has no {error}'
    ) from error
  except (OSError, ValueError, safetensors.SafetensorError) as error:
    raise UserError(f'{path}: cannot be read: {error}') from error
  if digest != checkpoint_files.fingerprint(checkpoint_files.describe(leaves)):
    raise UserError(f'{path} is damaged: its SHA-256 has changed; get it again')
  record = records.Record.from_json(fields, path)
  colorizer = record.build()
  shapes = _shapes(record, colorizer)
  for name in omitted:
    public = _public_weights(colorizer, name, shapes)
    leaves = {**public, **leaves}
  expected = checkpoint_files.flatten(shapes)
  leaves = {name: x.astype(expected[name].dtype) if name in expected else x
            for name, x in leaves.items()}
  return record, colorizer, checkpoint_files.fill(shapes, leaves, path)


def _shapes(record: records.Record, colorizer: Colorizer) -> Variables:
  """The variables of a method as `jax.ShapeDtypeStruct`s."""
  side = (record.image_size, record.image_size)
  return jax.eval_shape(
      lambda key: colorizer.init(key, side), jax.random.key(0))


def _public_weights(colorizer: Colorizer, name: str, variables: Variables
                    ) -> dict[str, np.ndarray]:
  """The leaves of a pretrained network as they are in its public file."""
  pretrained = colorizer.backbones[name]
  before = checkpoint_files.flatten(variables)
  after = checkpoint_files.flatten(
      pretrained.load(variables, pretrained.download()))
  return {key: np.asarray(x) for key, x in after.items()
          if x is not before[key]}


def _stored(name: str, x: np.ndarray, dtype: str) -> np.ndarray:
  """An array in the type of a model file; only float32 is converted.

  Raises:
    UserError: a number is too large for the type.
  """
  if x.dtype != np.float32:
    return x
  with np.errstate(over='ignore'):
    stored = x.astype(dtype)
  if not np.isfinite(stored).all():
    raise UserError(f'{name} has a number that is too large for {dtype}: pack '
                    'the model with dtype=float32')
  return stored
