"""Trained methods are loaded from work directories and model files."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
import safetensors.numpy
import tiny_method

from colorjax import files, records, saved
from colorjax.colorizer import FROZEN, PRETRAINED_ENCODER
from colorjax.errors import UserError
from colorjax.training import checkpoint

OLD = {'method': 'tiny_method', 'settings': {}, 'image_size': 32}


def test_load_a_run(tmp_path):
  tiny_method.write_run(tmp_path, image_size=48, num_components=3)
  colorizer, variables, image_size = saved.load(tmp_path)
  assert image_size == 48
  assert variables['params']['chroma'] == 40
  with pytest.raises(UserError, match='method of 3'):
    colorizer.propose(variables, {'lightness': jnp.zeros((1, 8, 8, 1))}, 4)


def test_refuses_a_directory_without_a_run(tmp_path):
  for folder in (tmp_path, tmp_path / 'missing'):
    with pytest.raises(UserError, match=r'holds no colorizer\.json'):
      saved.load(folder)
  files.write_json(tmp_path / records.FILE, OLD)
  with pytest.raises(UserError, match='checkpoint'):
    saved.load(tmp_path)


def _write_run(workdir, record, variables):
  record.save(workdir / records.FILE)
  with checkpoint.Checkpoints(workdir / checkpoint.DIRECTORY) as checkpoints:
    checkpoints.save(1, variables, {})


@pytest.fixture(scope='module')
def encoder_run(tmp_path_factory):
  """A run whose network has a frozen pretrained encoder; nothing is trained."""
  workdir = tmp_path_factory.mktemp('run')
  record = records.Record(
      method='colorjax.methods.regression', image_size=64,
      settings={'network': 'encoder', 'filters': [16]})
  colorizer = record.build()
  shapes = jax.eval_shape(
      lambda key: colorizer.init(key, (64, 64)), jax.random.key(0))
  (encoder,) = colorizer.backbones.values()
  shapes = encoder.load(shapes, encoder.download())
  random = np.random.default_rng(0)
  variables = jax.tree.map(
      lambda x: random.normal(0, 0.1, x.shape).astype(x.dtype)
      if isinstance(x, jax.ShapeDtypeStruct) else x, shapes)
  _write_run(workdir, record, variables)
  return workdir


class TestModelFile:

  def test_loads_what_was_packed_without_the_public_encoder(
      self, encoder_run, tmp_path):
    path = tmp_path / 'model.safetensors'
    assert saved.pack(encoder_run, path) == ['efficientnet_lite0']
    stored = safetensors.numpy.load_file(path)
    assert stored
    assert not any(PRETRAINED_ENCODER in name for name in stored)
    assert all(x.dtype == np.float16 for x in stored.values())
    _, expected, _ = saved.load(encoder_run)
    _, found, image_size = saved.load(path)
    assert image_size == 64
    exact = expected['model_state'][FROZEN]
    jax.tree.map(np.testing.assert_array_equal,
                 found['model_state'][FROZEN], exact)
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(
        x, y.astype(np.float16).astype(np.float32)),
        found['params'], expected['params'])

  def test_keeps_an_encoder_that_is_not_the_public_one(
      self, encoder_run, tmp_path):
    record, _, variables = saved._read_run(encoder_run)
    tree = variables['model_state'][FROZEN]['trunk'][PRETRAINED_ENCODER]
    changed = jax.tree.leaves(tree)[0]
    variables = jax.tree.map(
        lambda x: x * 2 if x is changed else x, variables)
    _write_run(tmp_path, record, variables)
    path = tmp_path / 'model.safetensors'
    saved.pack(tmp_path, path, dtype='float32')
    _, found, _ = saved.load(path)
    jax.tree.map(np.testing.assert_array_equal, found, variables)
    (name,) = [name for name in safetensors.numpy.load_file(path)
               if PRETRAINED_ENCODER in name]
    assert FROZEN in name

  def test_size_and_options_may_be_set(self, tmp_path):
    tiny_method.write_run(tmp_path, image_size=48, num_components=3)
    path = tmp_path / 'tiny.safetensors'
    saved.pack(tmp_path, path, image_size=64, asking={'num_components': 2})
    colorizer, variables, image_size = saved.load(path)
    assert image_size == 64
    assert variables['params']['chroma'] == 40
    with pytest.raises(UserError, match='method of 2'):
      colorizer.propose(variables, {'lightness': jnp.zeros((1, 8, 8, 1))}, 3)

  def test_refuses_a_number_that_is_too_large(self, tmp_path):
    tiny_method.write_run(tmp_path / 'run', image_size=48)
    record, _, variables = saved._read_run(tmp_path / 'run')
    variables['params']['chroma'] = np.float32(1e6)
    _write_run(tmp_path, record, variables)
    with pytest.raises(UserError, match=r'params/chroma .* too large for '):
      saved.pack(tmp_path, tmp_path / 'tiny.safetensors')
    assert not (tmp_path / 'tiny.safetensors').exists()

  def test_refuses_another_ending(self, tmp_path):
    with pytest.raises(UserError, match=r'ends in \.safetensors'):
      saved.pack(tmp_path, tmp_path / 'tiny.pt')

  def test_a_flipped_bit_is_noticed(self, tmp_path):
    tiny_method.write_run(tmp_path, image_size=48)
    path = tmp_path / 'tiny.safetensors'
    saved.pack(tmp_path, path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match='damaged: its SHA-256'):
      saved.load(path)

  @pytest.mark.parametrize('content', [b'', b'nonsense', b'\0' * 64])
  def test_refuses_other_files(self, tmp_path, content):
    path = tmp_path / 'tiny.safetensors'
    with pytest.raises(UserError, match='no such file'):
      saved.load(path)
    path.write_bytes(content)
    with pytest.raises(UserError, match='cannot be read') as error:
      saved.load(path)
    assert '\n' not in str(error.value)

  def test_refuses_weights_of_other_programs(self, tmp_path):
    path = tmp_path / 'tiny.safetensors'
    safetensors.numpy.save_file({'w': np.zeros(3)}, path)
    with pytest.raises(UserError, match='is not a model file of colorjax'):
      saved.load(path)

  def test_refuses_a_later_schema(self, tmp_path):
    path = tmp_path / 'tiny.safetensors'
    tiny_method.write_run(tmp_path, image_size=48)
    saved.pack(tmp_path, path)
    with safetensors.safe_open(path, framework='numpy') as file:
      metadata = file.metadata()
    record = json.loads(metadata['colorizer']) | {'schema': 99}
    safetensors.numpy.save_file(
        safetensors.numpy.load_file(path), path,
        metadata | {'colorizer': json.dumps(record)})
    with pytest.raises(UserError, match=r'tiny.safetensors: schema=99'):
      saved.load(path)
