"""Flows along a velocity field: solvers, and the density of what they carry.

A velocity field v(x, t) carries x from time 0 to time 1 along the solutions of
dx/dt = v(x, t). If x(0) has the density p0, that of x(1) follows from the
instantaneous change of variables (Chen et al. 2018, arXiv:1806.07366):

    log p1(x(1)) = log p0(x(0)) - integral of tr(dv/dx) over t from 0 to 1.

The trace of a small Jacobian is computed exactly. That of a large one is
estimated with random probes e, as the mean of e^T (dv/dx) e (Hutchinson; FFJORD
by Grathwohl et al. 2019, arXiv:1810.01367).
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from colorjax import keys as key_lib

State = Any
"""A pytree of arrays."""

Derivative = Callable[[State, jax.Array], State]
"""`(state, time) -> d state / d time`; time is a float32 scalar."""

MAX_EXACT = 64
"""Largest number of values for which `pull_back` computes the trace exactly.

The cost of the exact trace is one derivative of the velocity for each value.
"""

_CHUNK = 16  # columns of the Jacobian that are computed at once


def euler(derivative: Derivative, state: State, time: jax.Array,
          step: jax.typing.ArrayLike) -> State:
  """A step of Euler's method: one evaluation, first order."""
  return _move(state, step, derivative(state, time))


def heun(derivative: Derivative, state: State, time: jax.Array,
         step: jax.typing.ArrayLike) -> State:
  """A step of Heun's method: two evaluations, second order."""
  first = derivative(state, time)
  second = derivative(_move(state, step, first), time + step)
  return _move(state, step / 2, jax.tree.map(jnp.add, first, second))


SOLVERS: Mapping[str, Callable[..., State]] = {'euler': euler, 'heun': heun}
"""Solvers by name: functions `(derivative, state, time, step) -> state`."""


def solve(derivative: Derivative, state: State, *, solver: str, num_steps: int,
          start: float = 0.0, stop: float = 1.0) -> State:
  """Carries a state along its derivative.

  Args:
    derivative: the derivative of the state with respect to time.
    state: the state at the time `start`.
    solver: a key of SOLVERS.
    num_steps: number of steps of equal length, at least 1.
    start: time of `state`.
    stop: time of the result; may be before `start`.

  Returns:
    The state at the time `stop`.
  """
  step = (stop - start) / num_steps
  return jax.lax.fori_loop(
      0, num_steps, lambda i, state: SOLVERS[solver](
          derivative, state, start + step * jnp.float32(i), step), state)


class PulledBack(NamedTuple):
  """Where values come from, and how much the flow expands around them.

  Attributes:
    start: the values at time 0, [B, ...].
    log_expansion: the integral of tr(dv/dx), [B]: the log density of the values
      is that of `start` minus this.
    error: standard error of `log_expansion`, [B]; 0 if the trace is exact.
  """
  start: jax.Array
  log_expansion: jax.Array
  error: jax.Array


def is_exact(num_values: int) -> bool:
  """Whether `pull_back` computes the trace for this many values exactly."""
  return num_values <= MAX_EXACT


def pull_back(velocity: Derivative, x: jax.Array, keys: jax.Array, *,
              num_steps: int, num_probes: int) -> PulledBack:
  """Follows values from time 1 back to time 0, with Heun's method.

  Args:
    velocity: `(x [B, ...], time) -> dx / dt [B, ...]`. The velocity of a
      photograph must not depend on the others in the batch.
    x: values at time 1, [B, ...].
    keys: typed keys [B] for the probes.
    num_steps: number of steps.
    num_probes: number of independent estimates of the trace, at least 2, for
      more than MAX_EXACT values. Every step has probes of its own, so that the
      errors of the steps average out.

  Returns:
    The values at time 0, and the integral of the trace.
  """
  batch, *shape = x.shape
  size = math.prod(shape)
  exact = is_exact(size)
  step = 1 / num_steps

  def probes(i):
    """Rademacher probes of step i, [num_probes, B, ...]."""
    return jax.vmap(
        lambda keys: jax.vmap(lambda key: jax.random.rademacher(
            jax.random.fold_in(key, i), shape, x.dtype))(keys))(
                key_lib.of_answers(keys, num_probes))

  def derivative(i):
    """That of (x, integrals of the trace) in step i."""
    drawn = None if exact else probes(i)

    def both(state, time):
      value, product = jax.linearize(lambda x: velocity(x, time), state[0])
      trace = (_exact_trace(product, x) if drawn is None
               else jax.lax.map(lambda e: _per_photograph(e * product(e)),
                                drawn))
      return value, trace

    return both

  # Backwards in time, so that the integral has the opposite sign.
  start, integrals = jax.lax.fori_loop(
      0, num_steps, lambda i, state: heun(
          derivative(i), state, 1 - step * jnp.float32(i), -step),
      (x, jnp.zeros((1 if exact else num_probes, batch), x.dtype)))
  mean = -integrals.mean(0)
  if exact:
    return PulledBack(start, mean, jnp.zeros_like(mean))
  return PulledBack(
      start, mean, integrals.std(0, ddof=1) / jnp.sqrt(float(num_probes)))


def _move(state: State, step: jax.typing.ArrayLike, derivative: State
          ) -> State:
  return jax.tree.map(lambda x, d: x + step * d, state, derivative)


def _exact_trace(product: Callable[[jax.Array], jax.Array], x: jax.Array
                 ) -> jax.Array:
  """The trace [1, B] of each photograph's Jacobian, given its products."""
  _, *shape = x.shape
  size = math.prod(shape)

  def entry(i):
    column = jax.nn.one_hot(i, size, dtype=x.dtype).reshape(shape)
    return _per_photograph(column * product(jnp.broadcast_to(column, x.shape)))

  return jax.lax.map(
      entry, jnp.arange(size), batch_size=_CHUNK).sum(0, keepdims=True)


def _per_photograph(x: jax.Array) -> jax.Array:
  """Sums over all axes but the first: [B, ...] to [B]."""
  return x.sum(tuple(range(1, x.ndim)))
