"""The loop: cadence, exact resume, early stopping, signals, failed steps."""

import os
import signal
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import training_problem as problem

from colorjax.errors import UserError
from colorjax.training import checkpoint, loop, signals
from colorjax.training import checkpoint_files as files
from colorjax.training.failure import NonFiniteLoss


def _same(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


def test_a_run_writes_metrics_and_checkpoints(tmp_path):
  result = problem.train(tmp_path, 12)
  assert result.status == 'finished'
  assert result.exit_code == 0
  assert int(result.state.step) == 12
  lines = problem.lines(tmp_path)
  assert [(line['step'], line['split']) for line in lines] == [
      (5, 'train'), (10, 'train'), (10, 'validation'), (12, 'train'),
      (12, 'validation')]
  assert set(lines[0]) == {
      'step', 'split', 'loss', 'grad_norm', 'learning_rate'}
  # The metric is the mean over the steps since the last line.
  assert lines[0]['learning_rate'] == pytest.approx(
      np.mean([2, 4, 6, 8, 10]) * 1e-3)
  assert lines[1]['learning_rate'] == pytest.approx(1e-2, rel=1e-3)
  assert result.best_value == min(
      line['loss'] for line in lines if line['split'] == 'validation')
  assert checkpoint.steps(tmp_path / 'checkpoints') == [10, 12]
  assert list((tmp_path / 'tensorboard').iterdir())


def test_the_loss_falls(tmp_path):
  problem.train(tmp_path, 150, log_every=50, eval_every=150,
                checkpoint_every=150)
  first, *_, last = [line['loss'] for line in problem.lines(tmp_path)
                     if line['split'] == 'train']
  assert last < first / 2


def test_a_finished_run_is_not_trained_again(tmp_path):
  first = problem.train(tmp_path, 6)
  before = (tmp_path / 'metrics.jsonl').read_bytes()

  def no_batches(start):
    raise AssertionError('a finished run reads no data')

  again = problem.train(tmp_path, 6, batches=no_batches)
  assert again.status == 'was_finished'
  assert again.exit_code == 0
  _same(again.state, first.state)
  assert again.best_value == first.best_value
  assert (tmp_path / 'metrics.jsonl').read_bytes() == before


def test_a_finished_run_can_be_made_longer(tmp_path):
  problem.train(tmp_path / 'a', 10)
  longer = problem.train(tmp_path / 'a', 20)
  at_once = problem.train(tmp_path / 'b', 20)
  _same(longer.state, at_once.state)


def _interrupting(at, number):
  """Batches that send this process a signal while step `at` is loaded."""
  def batches(start):
    for step, batch in enumerate(problem.batches(start), start):
      if step + 1 == at:
        os.kill(os.getpid(), number)
      yield batch
  return batches


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_run_saves_at_a_signal_and_resumes(tmp_path, number):
  handler = signal.getsignal(number)
  said = []
  cut = problem.train(
      tmp_path / 'cut', 20, batches=_interrupting(7, number),
      say=said.append)
  assert cut.status == 'interrupted'
  assert cut.exit_code == 128 + number
  assert int(cut.state.step) == 7
  assert checkpoint.steps(tmp_path / 'cut' / 'checkpoints') == [7]
  assert said == [f'{signal.Signals(number).name} at step 7: saved in '
                  f'{tmp_path / "cut"}; run the same command again to resume']
  assert signal.getsignal(number) is handler
  resumed = problem.train(tmp_path / 'cut', 20)
  whole = problem.train(tmp_path / 'whole', 20)
  _same(resumed.state, whole.state)
  # In the middle of a window of 5 steps: its sums went through the checkpoint.
  assert ((tmp_path / 'cut' / 'metrics.jsonl').read_bytes()
          == (tmp_path / 'whole' / 'metrics.jsonl').read_bytes())


def test_a_second_signal_ends_the_process(monkeypatch):
  sent = []
  with signals.noticed() as notice:
    os.kill(os.getpid(), signal.SIGINT)
    assert notice.received == signal.SIGINT
    # A launcher hands on what the whole job was sent: one and the same.
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(signals._SAME_SECONDS)
    monkeypatch.setattr(os, 'kill', lambda *call: sent.append(call))
    signal.raise_signal(signal.SIGTERM)
    assert sent == [(os.getpid(), signal.SIGTERM)]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
  assert notice.received == signal.SIGINT
  assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_outside_the_main_thread_no_handler_is_set():
  seen = []

  def inside():
    with signals.noticed() as notice:
      seen.append(notice.received)

  thread = threading.Thread(target=inside)
  thread.start()
  thread.join()
  assert seen == [None]


def _validation(step):
  """A validation loss that is lowest at step 20."""
  return abs(step - 20) + 1.0


def test_patience_ends_a_run_at_the_same_step_after_a_restart(tmp_path):
  settings = {'validation_loss': _validation, 'patience': 3, 'keep': 1}
  whole = problem.train(tmp_path / 'whole', 100, **settings)
  assert whole.status == 'stopped'
  assert int(whole.state.step) == 50
  assert (whole.best_step, whole.best_value) == (20, 1.0)
  assert checkpoint.steps(tmp_path / 'whole' / 'checkpoints') == [20, 50]
  problem.train(tmp_path / 'cut', 100, **settings,
                batches=_interrupting(37, signal.SIGTERM))
  resumed = problem.train(tmp_path / 'cut', 100, **settings)
  assert int(resumed.state.step) == 50
  _same(resumed.state, whole.state)
  again = problem.train(tmp_path / 'cut', 100, **settings)
  assert again.status == 'was_finished'


def test_a_validation_loss_that_is_never_finite_is_never_the_best(tmp_path):
  result = problem.train(
      tmp_path, 30, validation_loss=lambda step: float('nan'), patience=2)
  assert (result.status, result.best_step) == ('stopped', None)
  assert int(result.state.step) == 20
  assert problem.lines(tmp_path)[-1] == {
      'step': 20, 'split': 'validation', 'loss': None}


def _nan_at_13(params, model_state, batch, keys, *, step, train):
  loss, aux = problem.loss(
      params, model_state, batch, keys, step=step, train=train)
  bad = jnp.any(batch['index'] == 12 * problem.BATCH_SIZE)
  return jnp.where(bad, jnp.nan, loss), aux


@pytest.mark.parametrize('checkpoint_every', [10, 13])
def test_a_failed_step_is_reported_and_saved(tmp_path, checkpoint_every):
  with pytest.raises(NonFiniteLoss) as caught:
    problem.train(
        tmp_path / 'bad', 30, loss=_nan_at_13,
        checkpoint_every=checkpoint_every,
        describe=lambda batch: [f'photo{i}.jpg' for i in batch['index']])
  message = str(caught.value)
  assert 'step 13: loss' in message
  assert 'photo96.jpg, photo97.jpg' in message
  assert '\n' not in message
  failed = tmp_path / 'bad' / 'failed' / '13'
  assert str(failed) in message
  # Exactly the state before the failed step, although a later step had been
  # dispatched.
  about = files.read_about(failed / 'state')
  leaves = files.read_leaves(failed / 'state', about)
  before = problem.train(tmp_path / 'good', 12, checkpoint_every=12)
  kept = files.fill(before.state, leaves, failed)
  _same(kept.replace(failed=False), before.state)
  with np.load(failed / 'batch.npz') as batch:
    _same(dict(batch), problem.batch(12))
  assert (failed / 'files.txt').read_text().split() == [
      f'photo{i}.jpg' for i in range(96, 104)]
  # No run resumes from it.
  assert 13 not in checkpoint.steps(tmp_path / 'bad' / 'checkpoints')


def test_a_step_may_fail_a_second_time(tmp_path):
  for _ in range(2):
    with pytest.raises(
        NonFiniteLoss, match=r'unnamed photographs; its batch and .*/13'):
      problem.train(tmp_path, 30, loss=_nan_at_13)


def test_batches_that_end_too_soon_are_reported(tmp_path):
  with pytest.raises(UserError, match='ended at step 3 of num_steps=10'):
    problem.train(tmp_path, 10, batches=lambda start: [
        problem.batch(i) for i in range(start, 3)])


def test_the_stream_is_closed(tmp_path):
  closed = []

  def batches(start):
    try:
      yield from problem.batches(start)
    finally:
      closed.append(start)

  problem.train(tmp_path, 3, batches=batches)
  assert closed == [0]


@pytest.mark.parametrize('name', ['num_steps', 'log_every', 'patience'])
def test_cadence_must_be_positive(name):
  with pytest.raises(UserError, match=f'{name}=0'):
    loop.Cadence(**{'num_steps': 1, name: 0})


def test_pictures_are_drawn_at_evaluations(tmp_path):
  steps = []

  def images(state):
    steps.append(int(state.step))
    return {'sheet': np.zeros((4, 6, 3), np.uint8)}

  problem.train(tmp_path, 25, images=images)
  assert steps == [10, 20, 25]
