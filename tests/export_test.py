"""Checks that exported methods give the same colors without this project."""

import importlib.util
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from colorjax import export, saved, zoo
from colorjax.errors import UserError
from colorjax.methods import mask_gan, mbm

SIZE = 32

_RUN = """
import sys
import numpy as np
given = np.load('given.npz')
arrays = [given[name] for name in sys.argv[2:]]
if sys.argv[1].endswith('.onnx'):
  import onnxruntime
  session = onnxruntime.InferenceSession(sys.argv[1])
  results = session.run(None, dict(zip(sys.argv[2:], arrays)))
else:
  import jax.export
  with open(sys.argv[1], 'rb') as file:
    results = jax.tree.leaves(
        jax.export.deserialize(file.read()).call(*arrays))
assert not any(name.startswith('colorjax') for name in sys.modules)
np.savez('results.npz', *results)
"""


def _run_elsewhere(folder, name, data, **inputs):
  """Runs an exported function in a process that does not see this project."""
  (folder / name).write_bytes(data)
  np.savez(folder / 'given.npz', **inputs)
  environment = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
  subprocess.run([sys.executable, '-c', _RUN, name, *inputs], cwd=folder,
                 env=environment, check=True)
  results = np.load(folder / 'results.npz')
  return [results[key] for key in results.files]


def _lightness(batch, size=SIZE):
  return np.random.default_rng(batch).uniform(
      0, 100, (batch, size, size, 1)).astype(np.float32)


def _propose(colorizer, variables, lightness):
  return jax.jit(lambda x: colorizer.propose(
      variables, {'lightness': x}, 2))(lightness)


def _predict(colorizer, variables, **inputs):
  return jax.jit(colorizer.predict)(variables, inputs)


@pytest.fixture(scope='module')
def mixture():
  """A mixture with random weights."""
  colorizer = mbm.build(num_components=3, filters=(16, 32))
  return colorizer, colorizer.init(jax.random.key(0), (SIZE, SIZE))


def test_stablehlo_takes_any_batch_and_returns_proposals(mixture, tmp_path):
  colorizer, variables = mixture
  data = export.stablehlo(colorizer, variables, SIZE, num_proposals=2)
  for batch in (1, 3):
    x = _lightness(batch)
    ab, probability = _run_elsewhere(tmp_path, 'm.stablehlo', data, lightness=x)
    want_ab, want_probability = _propose(colorizer, variables, x)
    assert np.ptp(want_ab) > 1  # not grey
    np.testing.assert_allclose(ab, want_ab, atol=1e-4)
    np.testing.assert_allclose(probability, want_probability, atol=1e-5)


def test_stablehlo_runs_on_gpus_too(mixture):
  exported = jax.export.deserialize(
      bytearray(export.stablehlo(*mixture, SIZE)))
  assert set(exported.platforms) == {'cpu', 'cuda', 'tpu'}


def test_options_and_region_are_exported(tmp_path):
  colorizer = mask_gan.build(widths=(8, 8, 8))
  variables = colorizer.init(jax.random.key(0), (SIZE, SIZE))
  region = np.zeros((2, SIZE, SIZE, 1), np.float32)
  region[:, :10] = 1
  inputs = {'lightness': _lightness(2), 'region': region}
  got, = _run_elsewhere(
      tmp_path, 'm.stablehlo', export.stablehlo(
          colorizer, variables, SIZE, inputs=tuple(inputs)), **inputs)
  np.testing.assert_allclose(got, _predict(colorizer, variables, **inputs),
                             atol=1e-4)
  without = _predict(colorizer, variables, lightness=inputs['lightness'])
  assert np.abs(got - without).max() > 1e-2


def test_refuses_what_cannot_be_exported(mixture):
  for settings, message in (
      ({'inputs': ('region',)}, 'lightness is missing'),
      ({'inputs': ('lightness', 'region')}, 'does not accept'),
      ({'inputs': ('lightness', 'reference')}, 'choose from'),
      ({'num_proposals': 4}, 'at most 3')):
    with pytest.raises(UserError, match=message):
      export.stablehlo(*mixture, SIZE, **settings)


@pytest.fixture
def needs_onnx():
  """Skips without the converter, unless the environment requires it."""
  if 'COLORJAX_REQUIRE_ONNX' not in os.environ:
    for package in ('jax2onnx', 'onnxruntime'):
      if importlib.util.find_spec(package) is None:
        pytest.skip(f'{package} is not installed')


@pytest.mark.usefixtures('needs_onnx')
def test_onnx_gives_the_same_colors(mixture, tmp_path):
  colorizer, variables = mixture
  data = export.onnx(colorizer, variables, SIZE, num_proposals=2)
  for batch in (1, 3):
    x = _lightness(batch)
    ab, probability = _run_elsewhere(tmp_path, 'm.onnx', data, lightness=x)
    want_ab, want_probability = _propose(colorizer, variables, x)
    # 1e-4 in network units, in which ab is divided by 110.
    np.testing.assert_allclose(ab, want_ab, atol=1e-2)
    np.testing.assert_allclose(probability, want_probability, atol=1e-4)


@pytest.mark.usefixtures('needs_onnx')
def test_onnx_of_the_model_that_comes_with_colorjax(tmp_path):
  colorizer, variables, _ = saved.load(zoo.path('general'))
  x = _lightness(2, 64)
  got, = _run_elsewhere(
      tmp_path, 'm.onnx', export.onnx(colorizer, variables, 64), lightness=x)
  want = _predict(colorizer, variables, lightness=x)
  assert np.ptp(want) > 5
  np.testing.assert_allclose(got, want, atol=1e-2)


def test_without_the_converter_onnx_says_what_to_install(mixture, monkeypatch):
  monkeypatch.setitem(sys.modules, 'jax2onnx', None)
  with pytest.raises(UserError, match='pip install --no-deps jax2onnx'):
    export.onnx(*mixture, SIZE)


def test_what_the_converter_does_not_know_is_one_line(mixture, monkeypatch):
  class Converter:
    def to_onnx(*args, **settings):
      raise NotImplementedError('no fft\nand more')
  monkeypatch.setitem(sys.modules, 'jax2onnx', Converter)
  with pytest.raises(UserError) as error:
    export.onnx(*mixture, SIZE)
  assert str(error.value).splitlines() == [
      'jax2onnx cannot convert this method; use StableHLO '
      '(NotImplementedError: no fft)']
