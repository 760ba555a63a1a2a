"""The one training loop. It imports no method, model or loss.

A run is a function of its initial state and of the batches, and batch n is a
function of n. A run that is killed and started again therefore continues from
its last checkpoint as the same run: same losses, same parameters, same
metrics.jsonl, to the last bit. This holds on the same machine and with
deterministic kernels (on a GPU, XLA needs a flag for that). The checkpoint also
holds what a run carries in addition to its `TrainState`: its `HostState`.

After step n its metrics are logged, then evaluations are run, then the state is
saved. If there is a checkpoint of step n, all lines of step n are therefore in
metrics.jsonl; later lines are deleted when a run resumes from it.
"""

import contextlib
import dataclasses
import math
import pathlib
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from colorjax import hosts, parallel
from colorjax.colorizer import Batch
from colorjax.errors import UserError
from colorjax.training import checkpoint, checkpoint_files, failure, signals
from colorjax.training.console import say
from colorjax.training.log import NoLog, RunLog
from colorjax.training.run_state import Cadence, HostState, TrainingResult
from colorjax.training.state import TrainState
from colorjax.training.steps import NON_FINITE
from colorjax.training.totals import Totals

Evaluation = Callable[[TrainState], Mapping[str, float]]
"""Computes metrics of a state on a data set, e.g. the validation loss."""


def train(
    state: TrainState,
    step: Callable[[TrainState, Batch], tuple[TrainState, Any]],
    batches: Callable[[int], Iterable[Batch]],
    *,
    workdir: pathlib.Path,
    cadence: Cadence,
    evaluations: Mapping[str, Evaluation] | None = None,
    monitor: str = 'validation',
    images: Callable[[TrainState], Mapping[str, np.ndarray]] | None = None,
    describe: Callable[[Batch], list[str]] | None = None,
    say: Callable[[str], None] = say,
) -> TrainingResult:
  """Trains until the run is complete or interrupted; resumes an earlier run.

  Args:
    state: the state before the first step. If the work directory has a
      checkpoint, the run resumes from that instead.
    step: `(state, host batch) -> (state, metrics)`, the step of
      `make_train_step` under `parallel.pmap_step`.
    batches: `start -> iterable of host batches`: the batches of the steps
      start, start + 1, ..., counted from 0, at least up to the last one.
    workdir: an existing directory, which the caller holds by `claim_workdir`.
    cadence: how often to log, evaluate and save.
    evaluations: evaluations by split name. They use `state.variables`.
    monitor: split whose 'loss' decides the best checkpoint and early stopping.
    images: `state -> pictures` for TensorBoard, uint8 [H, W, 3], by name.
    describe: `batch -> file names` of its photographs, for the message about
      a step that is not finite.
    say: called with each line about the progress of the run.

  Returns:
    How the run ended.

  Raises:
    NonFiniteLoss: a loss or gradient is NaN or infinite.
    CheckpointError: a checkpoint cannot be written, or none can be read.
    UserError: another problem that the user can fix.
  """
  workdir = pathlib.Path(workdir)
  writes = hosts.is_main()
  with contextlib.ExitStack() as stack:
    checkpoints = stack.enter_context(
        checkpoint.Checkpoints(workdir / checkpoint.DIRECTORY,
                               keep=cadence.keep, say=say)
        if writes else checkpoint.NoCheckpoints())
    state, host, start = _restore(checkpoints, state)
    if host.stopped or start >= cadence.num_steps:
      return _result('was_finished', state, host)
    run = _Run(
        step=step, state=state, host=host, cadence=cadence, workdir=workdir,
        checkpoints=checkpoints, describe=describe, images=images,
        evaluations=evaluations or {}, monitor=monitor, say=say,
        notice=stack.enter_context(signals.noticed()),
        log=stack.enter_context(RunLog(
            workdir, step=start, num_steps=cadence.num_steps)
                                if writes else NoLog()))
    if start and writes:
      say(f'resuming from step {start} in {workdir}')
    result = run.train(start, stack.enter_context(_closing(batches(start))))
    return dataclasses.replace(
        result, stepping_seconds=run.log.stepping_seconds,
        seconds_per_step=run.log.seconds_per_step)


def _restore(checkpoints: checkpoint.Checkpoints, state: TrainState
             ) -> tuple[TrainState, HostState, int]:
  """Returns the state to start or resume from, on the devices, and its step.

  All processes get the state of the main process. Initial states may differ in
  their last bits between machines, and only the main process reads checkpoints.
  """
  restored = checkpoints.restore_latest(state)
  state, host = restored or (state, {})
  host = hosts.on_main(lambda: host)
  if hosts.count() > 1:
    state = checkpoint_files.fill(
        state, hosts.from_main(checkpoint_files.snapshot(state)),
        pathlib.Path(checkpoint.DIRECTORY))
  return parallel.replicate(state), HostState(**host), int(state.step)


def _say_nothing(line: str) -> None:
  """Replaces `say` in all processes except the main one."""


def _result(status, state: TrainState, host: HostState, signal=None
            ) -> TrainingResult:
  return TrainingResult(status=status, state=state, best_value=host.best_value,
                best_step=host.best_step, signal=signal)


@contextlib.contextmanager
def _closing(batches: Iterable[Batch]) -> Iterator[Iterator[Batch]]:
  """Iterates and finally closes the iterator, which may hold threads."""
  iterator = iter(batches)
  try:
    yield iterator
  finally:
    close = getattr(iterator, 'close', None)
    if close:
      close()


@dataclasses.dataclass(kw_only=True)
class _Run:
  """The variables of one call of `train`."""

  step: Callable[[TrainState, Batch], tuple[TrainState, Any]]
  state: TrainState
  host: HostState
  cadence: Cadence
  workdir: pathlib.Path
  checkpoints: checkpoint.Checkpoints
  evaluations: Mapping[str, Evaluation]
  monitor: str
  images: Callable[[TrainState], Mapping[str, np.ndarray]] | None
  describe: Callable[[Batch], list[str]] | None
  say: Callable[[str], None]
  notice: signals.Notice
  log: RunLog
  pending: tuple[int, Batch, Any] | None = None
  failed: frozenset[int] = frozenset()  # replicas that are known to have failed
  received: int = 0  # signal number that all processes agreed on, or 0
  vote: parallel.Vote = dataclasses.field(default_factory=parallel.Vote)

  def train(self, start: int, batches: Iterator[Batch]) -> TrainingResult:
    """Makes steps until the run ends; metrics are read one step late."""
    window = Totals(self.host.window)
    for n in range(start + 1, self.cadence.num_steps + 1):
      batch = next(batches, None)
      if batch is None:
        raise UserError(
            f'the batches ended at step {n - 1} of num_steps='
            f'{self.cadence.num_steps}: batches(start) has to yield them all')
      self.state, metrics = self.step(self.state, batch)
      self.received = self.vote(self.notice.received or 0)
      # The device is busy with step n while the host reads step n - 1.
      self._read(window)
      self.pending = (n, batch, metrics)
      if self._is_boundary(n):
        self._read(window)
        if self._boundary(n, window):
          break
    return self._end(n)

  def _is_boundary(self, n: int) -> bool:
    """Whether the state of step n itself is needed on the host."""
    cadence = self.cadence
    return bool(
        self.received
        or cadence.due(n, cadence.eval_every)
        or cadence.due(n, cadence.checkpoint_every))

  def _read(self, window: Totals) -> None:
    """Waits for the last dispatched step and adds its metrics to `window`."""
    if self.pending is None:
      return
    n, batch, metrics = self.pending
    self.pending = None
    metrics = jax.device_get(metrics)
    self._check_finite(n, batch, metrics)
    window.add(metrics)
    self.log.advance(n, len(batch['padding_mask']) * hosts.count())
    if self.cadence.due(n, self.cadence.log_every):
      self.log.train(n, window.means())
      window.clear()

  def _boundary(self, n: int, window: Totals) -> bool:
    """Evaluates and saves after step n if due; returns whether to end."""
    value, is_best = None, False
    with self.log.paused():
      if self.cadence.due(n, self.cadence.eval_every):
        value = self._evaluate(n)
      if value is not None:
        is_best = self.host.judge(n, value, self.cadence.patience)
      # Read once: a signal that arrives later is handled after the next step.
      ends = self.host.stopped or bool(self.received)
      if ends or is_best or self.cadence.due(n, self.cadence.checkpoint_every):
        self.host.window = window.pairs()
        finite = value is not None and math.isfinite(value)
        self.checkpoints.save(
            n, self.state, dataclasses.asdict(self.host),
            value=value if finite else None)
    return ends

  def _evaluate(self, n: int) -> float | None:
    """Runs and logs the evaluations; returns the monitored loss, or None."""
    value = None
    for split, evaluation in self.evaluations.items():
      metrics = evaluation(self.state)
      self.log.evaluation(n, split, metrics)
      if split == self.monitor:
        # Early stopping must be the same in all processes, so they all use
        # the value of process 0.
        value = hosts.gather(float(metrics['loss']))[0]
    if self.images and hosts.is_main():
      self.log.images(n, self.images(self.state))
    return value

  def _check_finite(self, n: int, batch: Batch, metrics: Any) -> None:
    """Removes NON_FINITE from the metrics of step n, and acts on it.

    A run whose replicas have all failed ends, like that of a single model.

    Raises:
      NonFiniteLoss: no model is left that can be trained.
    """
    failed = np.asarray(metrics.pop(NON_FINITE)[0]) > 0
    if failed.all():
      self._fail(n, batch, metrics)
    if failed.any():
      found = frozenset(np.flatnonzero(failed).tolist())
      if hosts.is_main():
        for replica in sorted(found - self.failed):
          self.say(f'step {n}: replica {replica} has stopped, because a loss, '
                   'gradient or state was not finite; the others go on')
      self.failed = found

  def _fail(self, n: int, batch: Batch, metrics: Any) -> None:
    """Raises NonFiniteLoss; `self.state` is still the state before step n."""
    def mean(name):
      value, count = metrics[name]
      return float(np.sum(value)) / max(float(np.sum(count)), 1)

    batch = hosts.gather_rows(batch)
    raise failure.NonFiniteLoss(hosts.on_main(lambda: str(failure.keep_failure(
        self.workdir, step=n, state=self.state, batch=batch,
        names=self.describe(batch) if self.describe else [],
        loss=mean('loss'), grad_norm=mean('grad_norm')))))

  def _end(self, n: int) -> TrainingResult:
    """Waits for the last save and reports how the run ended."""
    self.checkpoints.wait()
    hosts.barrier('saved')
    host, received = self.host, self.received
    say = self.say if hosts.is_main() else _say_nothing
    if host.stopped:
      say(f'stopped early at step {n}: the last {host.stale} evaluations '
          f'did not improve on the loss of step {host.best_step}')
      return _result('stopped', self.state, host)
    if n == self.cadence.num_steps:
      return _result('finished', self.state, host)
    assert received  # Nothing else ends the loop early.
    say(f'{signal.Signals(received).name} at step {n}: saved in '
        f'{self.workdir}; run the same command again to resume')
    return _result('interrupted', self.state, host, received)
