"""Checkpoints that are intact, damaged, missing, or of another network."""

import json
import os
import pathlib
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from colorjax.training import checkpoint
from colorjax.training import checkpoint_files as files
from colorjax.training.checkpoint import CheckpointError, Checkpoints
from colorjax.training.optimizers import make_optimizer
from colorjax.training.state import create_state

OPTIMIZER = make_optimizer('adamw', learning_rate=1e-3, clip_norm=1.0)


def _state(step, *, width=4, ema=False, dtype=jnp.float32):
  rng = np.random.default_rng(step)
  params = {'Dense_0': {
      'kernel': jnp.asarray(rng.normal(size=(2000, width)), dtype),
      'bias': jnp.zeros(width), 'none': jnp.zeros((0, 2))}}
  state = create_state({'params': params, 'model_state': {}}, OPTIMIZER,
                       ema=ema)
  return state.replace(step=jnp.asarray(step, jnp.int32))


def _save_all(workdir, steps, values=None, **settings):
  with Checkpoints(workdir / checkpoint.DIRECTORY, **settings) as checkpoints:
    for step in steps:
      checkpoints.save(step, _state(step), {'best_step': step},
                       value=(values or {}).get(step))


def _restore(workdir, like=None, said=None):
  said = [] if said is None else said
  with Checkpoints(workdir / checkpoint.DIRECTORY, say=said.append) as all_:
    return all_.restore_latest(_state(0) if like is None else like)


def _same(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)
  assert jax.tree.map(lambda x: x.dtype, a) == jax.tree.map(
      lambda x: x.dtype, b)


def _data_file(workdir, step):
  """The largest file of a checkpoint: its arrays."""
  folder = workdir / checkpoint.DIRECTORY / str(step) / 'state'
  return max((p for p in folder.rglob('*') if p.is_file()),
             key=lambda p: p.stat().st_size)


def _flip(path, at=None):
  content = bytearray(path.read_bytes())
  content[len(content) // 2 if at is None else at] ^= 1
  path.write_bytes(content)


def test_restores_what_was_saved(tmp_path):
  state = _state(7, ema=True, dtype=jnp.bfloat16)
  with Checkpoints(tmp_path / checkpoint.DIRECTORY) as checkpoints:
    checkpoints.save(7, state, {'window': {'loss': [1 / 3, 2.0]}}, value=0.5)
  like = jax.eval_shape(lambda: _state(0, ema=True, dtype=jnp.bfloat16))
  restored, host = _restore(tmp_path, like)
  _same(restored, state)
  assert host == {'window': {'loss': [1 / 3, 2.0]}}


def test_saved_is_the_state_at_that_moment(tmp_path):
  step = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
  state = {'w': jnp.zeros(1_000_000)}
  on_host = np.zeros(1_000_000)
  with Checkpoints(tmp_path / checkpoint.DIRECTORY) as checkpoints:
    checkpoints.save(0, state | {'n': on_host}, {})
    on_host += 1
    for _ in range(20):  # donated buffers are overwritten while it is written
      state = step(state)
  restored, _ = _restore(
      tmp_path, {'w': jnp.ones(1_000_000), 'n': on_host})
  np.testing.assert_array_equal(restored['w'], 0)
  np.testing.assert_array_equal(restored['n'], 0)


def test_nothing_to_restore(tmp_path):
  assert _restore(tmp_path) is None


def test_keeps_the_best_and_the_last(tmp_path):
  _save_all(tmp_path, [1, 2, 3, 4, 5], {1: 0.9, 2: 0.1, 3: 0.1}, keep=2)
  assert checkpoint.steps(tmp_path / checkpoint.DIRECTORY) == [2, 4, 5]


def test_the_best_is_remembered_over_a_restart(tmp_path):
  _save_all(tmp_path, [1, 2], {1: 0.1, 2: 0.9}, keep=1)
  _save_all(tmp_path, [3, 4], {3: 0.5}, keep=1)
  assert checkpoint.steps(tmp_path / checkpoint.DIRECTORY) == [1, 4]


def test_saving_a_step_twice_is_an_error(tmp_path):
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(1, _state(1), {})
    with pytest.raises(CheckpointError, match=r'1 exists already'):
      checkpoints.save(1, _state(1), {})


def test_never_a_pickle(tmp_path):
  _save_all(tmp_path, [1])
  for path in tmp_path.rglob('*'):
    if path.is_file():
      assert not path.read_bytes().startswith(b'\x80'), path


def _truncate(workdir, step):
  path = _data_file(workdir, step)
  os.truncate(path, path.stat().st_size // 2)


DAMAGES = {
    'flipped byte': lambda w, s: _flip(_data_file(w, s)),
    'truncated': _truncate,
    'missing file': lambda w, s: _data_file(w, s).unlink(),
    'no description': lambda w, s: _about(w, s).unlink(),
    'altered description': lambda w, s: _about(w, s).write_text(
        _about(w, s).read_text().replace('best_step', 'best_stap')),
    'empty directory': lambda w, s: subprocess.run(
        f'rm -r {w / checkpoint.DIRECTORY / str(s)}/*', shell=True,
        check=True),
}


def _about(workdir, step):
  folder = workdir / checkpoint.DIRECTORY / str(step) / 'about'
  return next(p for p in folder.rglob('*')
              if p.is_file() and p.read_bytes().startswith(b'{'))


@pytest.mark.parametrize('damage', DAMAGES)
def test_damage_is_named_and_the_one_before_taken(tmp_path, damage):
  _save_all(tmp_path, [1, 2])
  DAMAGES[damage](tmp_path, 2)
  said = []
  restored, host = _restore(tmp_path, said=said)
  _same(restored, _state(1))
  assert host == {'best_step': 1}
  assert len(said) == 1
  assert str(tmp_path / checkpoint.DIRECTORY / '2') in said[0]
  assert '\n' not in said[0]
  # The number is free again, and the damaged bytes are not thrown away.
  _save_all(tmp_path, [2])
  _same(_restore(tmp_path)[0], _state(2))
  assert (tmp_path / checkpoint.DIRECTORY / '2.damaged').exists()


def test_every_byte_of_the_arrays_is_guarded(tmp_path):
  _save_all(tmp_path, [1])
  path = _data_file(tmp_path, 1)
  whole = path.read_bytes()
  for at in np.random.default_rng(0).integers(0, len(whole), 12):
    _flip(path, at)
    try:
      about = files.read_about(path.parents[3])
      leaves = files.read_leaves(path.parents[3], about)
    except CheckpointError:
      continue
    finally:
      path.write_bytes(whole)
    # A byte that changes nothing that is read back may pass.
    _same(files.fill(_state(0), leaves, path), _state(1))


def test_all_damaged_is_an_error_and_nothing_is_moved(tmp_path):
  _save_all(tmp_path, [1, 2])
  for step in (1, 2):
    _flip(_data_file(tmp_path, step))
  for _ in range(2):  # a second start must not begin anew
    with pytest.raises(CheckpointError, match='every checkpoint in'):
      _restore(tmp_path)


@pytest.mark.parametrize(('like', 'named'), [
    (_state(0, width=5),
     r'Dense_0/bias is float32\[4\] in the checkpoint and float32\[5\] in the '
     r'network.* \(and \d+ more\)'),
    (_state(0, ema=True), r'ema/.* is absent in the checkpoint'),
    (_state(0, dtype=jnp.bfloat16),
     r'kernel is float32\[2000,4\] in the checkpoint and bfloat16'),
    (_state(0).replace(opt_state=optax.sgd(1.0).init({})),
     r'opt_state/.* and absent in the network'),
])
def test_another_network_is_refused_in_one_line(tmp_path, like, named):
  _save_all(tmp_path, [1])
  with pytest.raises(CheckpointError, match=named) as caught:
    _restore(tmp_path, like)
  assert 'holds another network' in str(caught.value)
  assert '\n' not in str(caught.value)
  assert len(str(caught.value)) < 500


def test_variables_for_inference(tmp_path):
  _save_all(tmp_path, [1, 2, 3], {1: 0.5, 2: 0.2, 3: 0.4})
  best = checkpoint.restore_variables(tmp_path)
  _same(best, {'params': _state(2).params, 'model_state': {}})
  latest = checkpoint.restore_variables(
      tmp_path, which='latest', like=jax.eval_shape(
          lambda: {'params': _state(0).params, 'model_state': {}}))
  _same(latest['params'], _state(3).params)
  said = []
  _flip(_data_file(tmp_path, 2))
  other = checkpoint.restore_variables(tmp_path, say=said.append)
  _same(other['params'], _state(3).params)
  assert len(said) == 1
  # Reading alone changes nothing, not even a damaged checkpoint's name.
  assert checkpoint.steps(tmp_path / checkpoint.DIRECTORY) == [1, 2, 3]


def test_inference_takes_the_average_of_parameters_and_statistics(tmp_path):
  state = _state(1, ema=True)
  state = state.replace(
      model_state={'batch_stats': {'mean': jnp.zeros(3)}}, ema={
          'params': jax.tree.map(lambda x: x + 1, state.params),
          'model_state': {'batch_stats': {'mean': jnp.ones(3)}}})
  with Checkpoints(tmp_path / checkpoint.DIRECTORY) as checkpoints:
    checkpoints.save(1, state, {})
  _same(checkpoint.restore_variables(tmp_path), state.ema)


def test_inference_refuses_another_network(tmp_path):
  _save_all(tmp_path, [1])
  with pytest.raises(CheckpointError, match='holds another network'):
    checkpoint.restore_variables(
        tmp_path,
        like={'params': _state(0, width=9).params, 'model_state': {}})


def test_no_checkpoint_for_inference(tmp_path):
  with pytest.raises(CheckpointError, match='no checkpoint in'):
    checkpoint.restore_variables(tmp_path)


def test_unwritable_directory_is_named(tmp_path):
  (tmp_path / 'file').touch()
  with pytest.raises(CheckpointError, match=r'cannot write to .*file'):
    Checkpoints(tmp_path / 'file' / 'checkpoints')


# A limit on the size of files is what a full disk is to the writer; it needs
# no rights and ends with the process.
FULL_DISK = '''
import pathlib, resource, signal, sys
import numpy as np
from colorjax.training import checkpoint
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path = pathlib.Path(sys.argv[1])
said = []
try:
  with checkpoint.Checkpoints(path) as checkpoints:
    checkpoints.save(1, {'w': np.ones(10)}, {})
    checkpoints.wait()
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
    rng = np.random.default_rng(0)
    checkpoints.save(2, {'w': rng.normal(size=100_000)}, {})
except checkpoint.CheckpointError as error:
  print(error)
'''


def test_full_disk_is_one_line_and_the_last_checkpoint_stays(tmp_path):
  done = subprocess.run(
      [sys.executable, '-c', FULL_DISK, str(tmp_path / 'checkpoints')],
      capture_output=True, text=True, check=True,
      cwd=pathlib.Path(__file__).parents[2])
  lines = done.stdout.splitlines()
  assert len(lines) == 1, done.stdout
  assert 'cannot write checkpoint' in lines[0]
  assert os.listdir(tmp_path / 'checkpoints') == ['1']
  restored, _ = _restore(tmp_path, {'w': np.zeros(10)})
  np.testing.assert_array_equal(restored['w'], 1)


def test_description_is_plain_json(tmp_path):
  _save_all(tmp_path, [1], {1: 0.25})
  about = json.loads(_about(tmp_path, 1).read_text())
  assert len(about['host'].pop('frozen')) == 64
  assert about['host'] == {
      'step': 1, 'value': 0.25, 'host': {'best_step': 1}}
  assert about['leaves']['params/Dense_0/kernel']['shape'] == [2000, 4]


def test_saves_of_one_process_do_not_overlap(tmp_path, monkeypatch):
  # Orbax's would wait for each other's signals, up to minutes.
  under_way, most = [], []
  save = files.ocp.Checkpointer.save

  def observed(*args, **kwargs):
    under_way.append(1)
    most.append(len(under_way))
    time.sleep(0.05)
    save(*args, **kwargs)
    under_way.pop()

  monkeypatch.setattr(files.ocp.Checkpointer, 'save', observed)
  with Checkpoints(tmp_path / 'a') as a, Checkpoints(tmp_path / 'b') as b:
    for checkpoints in (a, b):
      checkpoints.save(1, {'w': np.ones(3)}, {})
  assert most == [1, 1]


CHATTER = '''
import pathlib, sys
import numpy as np
from absl import app, logging
from colorjax.training import checkpoint

def main(argv):
  logging.set_verbosity(logging.INFO)
  for step in (1, 2):
    with checkpoint.Checkpoints(pathlib.Path(argv[1])) as checkpoints:
      checkpoints.save(step, {'w': np.ones(10)}, {})
      checkpoints.restore_latest({'w': np.ones(10)})
  logging.info('still heard')

app.run(main)
'''


def test_scripts_under_absl_do_not_print_what_orbax_logs(tmp_path):
  done = subprocess.run(
      [sys.executable, '-c', CHATTER, str(tmp_path / 'checkpoints')],
      capture_output=True, text=True, check=True,
      cwd=pathlib.Path(__file__).parents[2])
  lines = done.stderr.splitlines()
  assert len(lines) == 1, done.stderr
  assert 'still heard' in lines[0]
