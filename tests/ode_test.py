"""Solvers and densities of flows, against closed forms and brute force."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.linalg
from asking import keys

from colorjax import ode

pytestmark = pytest.mark.usefixtures('compiles_quickly')


def _nonlinear(x, time):
  """A velocity that couples the two values of [B, 2] and depends on time."""
  a, b = x[..., 0], x[..., 1]
  return jnp.stack([jnp.sin(b) + 0.3 * time * a, jnp.cos(a) - 0.5 * b], -1)


def _matrix(size, seed=0):
  rng = np.random.default_rng(seed)
  return jnp.asarray(rng.normal(0, 0.3, (size, size)), jnp.float32)


def _error(solver, num_steps):
  """The error at time 1 of dx/dt = x cos(3 t)."""
  found = ode.solve(lambda x, t: x * jnp.cos(3 * t), jnp.float32(2),
                    solver=solver, num_steps=num_steps)
  return abs(float(found) - 2 * np.exp(np.sin(3) / 3))


@pytest.mark.parametrize(('solver', 'order'), [('euler', 1), ('heun', 2)])
def test_order_of_convergence(solver, order):
  """Twice as many steps divide the error by 2, or by 4."""
  coarse, fine = _error(solver, 32), _error(solver, 64)
  assert np.log2(coarse / fine) == pytest.approx(order, abs=0.35)


def test_one_step_of_each_solver_by_hand():
  """dx/dt = x + t from x(0) = 1 over a step of 1/2."""
  step = {name: float(ode.solve(lambda x, t: x + t, jnp.float32(1),
                                solver=name, num_steps=1, stop=0.5))
          for name in ode.SOLVERS}
  assert step == {'euler': 1.5, 'heun': 1 + 0.25 * (1 + (1.5 + 0.5))}


def test_backwards_undoes_forwards_on_a_tree():
  def derivative(state, time):
    return {'a': -state['a'] * time, 'b': jnp.sin(state['b'])}

  start = {'a': jnp.ones(3), 'b': jnp.arange(2.)}
  there = ode.solve(derivative, start, solver='heun', num_steps=64)
  back = ode.solve(derivative, there, solver='heun', num_steps=64, start=1.,
                   stop=0.)
  assert jnp.abs(there['a'] - start['a']).max() > 0.3
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-4),
               back, start)


def test_a_linear_flow_has_the_trace_of_its_matrix():
  matrix = _matrix(6)
  x = jax.random.normal(jax.random.key(0), (3, 1, 3, 2))

  def velocity(x, time):
    return (2 * time * x.reshape(3, 6) @ matrix.T).reshape(x.shape)

  pulled = jax.jit(lambda x: ode.pull_back(
      velocity, x, keys(3), num_steps=64, num_probes=2))(x)
  # The integral of 2 t over [0, 1] is 1.
  np.testing.assert_allclose(pulled.log_expansion, np.trace(matrix), rtol=1e-4)
  np.testing.assert_array_equal(pulled.error, 0)
  expected = x.reshape(3, 6) @ scipy.linalg.expm(-np.asarray(matrix)).T
  np.testing.assert_allclose(
      pulled.start.reshape(3, 6), expected, atol=1e-3)


def test_the_exact_trace_is_the_log_determinant_of_the_flow():
  """The Jacobian of the whole map from time 0 to 1, by brute force."""
  x = jax.random.normal(jax.random.key(1), (4, 2))
  pulled = ode.pull_back(_nonlinear, x, keys(4), num_steps=128, num_probes=2)

  def carry(x):
    return ode.solve(_nonlinear, x, solver='heun', num_steps=128)

  np.testing.assert_allclose(
      jax.vmap(carry)(pulled.start), x, atol=1e-3)
  _, expected = jnp.linalg.slogdet(jax.vmap(jax.jacfwd(carry))(pulled.start))
  assert jnp.abs(expected).max() > 0.3
  np.testing.assert_allclose(pulled.log_expansion, expected, atol=1e-3)


def test_the_density_integrates_to_one_and_is_that_of_the_samples():
  axis = np.linspace(-6, 6, 97)
  grid = jnp.asarray(np.stack(np.meshgrid(axis, axis, indexing='ij'), -1),
                     jnp.float32).reshape(-1, 2)
  pulled = jax.jit(lambda x: ode.pull_back(
      _nonlinear, x, keys(len(x)), num_steps=32, num_probes=2))(grid)
  density = np.exp(jax.scipy.stats.norm.logpdf(pulled.start).sum(-1)
                   - pulled.log_expansion).reshape(97, 97)

  def integral(values):
    return scipy.integrate.simpson(scipy.integrate.simpson(
        values, x=axis), x=axis)

  assert integral(density) == pytest.approx(1, abs=2e-3)
  samples = ode.solve(
      _nonlinear, jax.random.normal(jax.random.key(2), (40000, 2)),
      solver='heun', num_steps=32)
  for power in (1, 2):
    for i in range(2):
      values = axis[:, None] if i == 0 else axis[None]
      assert float((samples[:, i]**power).mean()) == pytest.approx(
          integral(density * values**power), abs=0.03)
  inside = integral(density * ((axis[:, None] > 0.5) & (axis > 0)))
  assert float(((samples[:, 0] > 0.5) & (samples[:, 1] > 0)).mean()
               ) == pytest.approx(inside, abs=0.02)


def _estimates(num_probes, count=400):
  """Estimates for one photograph of 72 values, and the exact integral."""
  size = 72
  assert not ode.is_exact(size)
  matrix = _matrix(size, seed=3) / 3

  def velocity(x, time):
    return jnp.sin(x) @ matrix.T * time

  x = jax.random.normal(jax.random.key(5), (1, size))
  many = jnp.broadcast_to(x, (count, size))
  found = jax.jit(lambda x: ode.pull_back(
      velocity, x, keys(count), num_steps=4, num_probes=num_probes))(many)
  # Heun's method on the exact trace.
  start, exact = x[0], 0.0

  def trace(x, time):
    return jnp.trace(jax.jacfwd(lambda x: velocity(x, time))(x))

  for i in range(4):
    time = 1 - i / 4
    ahead = start - velocity(start, time) / 4
    exact += (trace(start, time) + trace(ahead, time - 0.25)) / 8
    start = start - (velocity(start, time)
                     + velocity(ahead, time - 0.25)) / 8
  np.testing.assert_allclose(found.start[0], start, atol=1e-4)
  return found, float(exact)


@pytest.mark.parametrize('num_probes', [2, 5])
def test_the_estimate_is_unbiased_and_knows_its_error(num_probes):
  found, exact = _estimates(num_probes)
  spread = float(found.log_expansion.std(ddof=1))
  assert spread > 0.01
  assert abs(float(found.log_expansion.mean()) - exact) < 4 * spread / 20
  # The squared standard errors are unbiased estimates of the variance.
  assert float(jnp.square(found.error).mean()) == pytest.approx(
      spread**2, rel=0.25)


def test_more_probes_and_more_steps_reduce_the_error():
  """Each step has probes of its own, so the errors of steps average out."""
  few, _ = _estimates(2)
  many, _ = _estimates(8)
  ratio = float(jnp.square(few.error).mean() / jnp.square(many.error).mean())
  assert ratio == pytest.approx(4, rel=0.35)

  def error(num_steps):
    matrix = _matrix(72, seed=4)
    return float(jnp.square(jax.jit(lambda x: ode.pull_back(
        lambda x, t: x @ matrix.T, x, keys(200), num_steps=num_steps,
        num_probes=2).error)(jnp.zeros((200, 72)))).mean())

  assert error(2) / error(8) == pytest.approx(4, rel=0.35)


def test_an_estimate_depends_on_its_own_photograph_only():
  matrix = _matrix(72, seed=4)
  x = jax.random.normal(jax.random.key(6), (3, 72))
  run = jax.jit(lambda x, keys: ode.pull_back(
      lambda x, t: jnp.sin(x) @ matrix.T, x, keys, num_steps=2, num_probes=2))
  whole, alone = run(x, keys(3)), run(x[1:2], keys(3)[1:2])
  for one, other in zip(whole, alone, strict=True):
    np.testing.assert_allclose(one[1:2], other, rtol=1e-4, atol=1e-5)
  assert float(run(x[:1], keys(3)[1:2]).log_expansion[0]) != pytest.approx(
      float(whole.log_expansion[0]), abs=1e-4)
