"""Flow matching: the contract, losses, sampling, guidance and the density."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from asking import batch_of, compiled, grey, grey_inputs, hinted, keys, lab_of
from method_checks import (
    check_export,
    check_gradients,
    check_influence,
    check_inputs,
    check_known_values,
    check_owners,
    check_padding,
)

from colorjax import color, ode
from colorjax import keys as key_lib
from colorjax.errors import UserError
from colorjax.methods import flow_matching, known
from colorjax.models import trunk, velocity

pytestmark = pytest.mark.usefixtures('compiles_quickly')

SMALL = {'filters': (16, 16), 'width': 8}
SIZE = 16


def _moved(variables, amount=0.1):
  """Random variables: the output layer is initialized to 0."""
  numbers = iter(jax.random.split(jax.random.key(7), 99))
  return {**variables, 'params': jax.tree.map(
      lambda x: x + amount * jax.random.normal(next(numbers), x.shape),
      variables['params'])}


@functools.cache
def _method(size=SIZE, **settings):
  """A colorizer and random variables."""
  colorizer = flow_matching.build(**{**SMALL, **settings})
  variables = jax.jit(colorizer.init, static_argnums=1)(
      jax.random.key(0), (size, size))
  return colorizer, _moved(variables)


class TestContract:

  @pytest.mark.parametrize('objective', flow_matching.OBJECTIVES)
  def test_samples_proposals_and_predictions(self, objective):
    colorizer, variables = _method(objective=objective)
    inputs = grey_inputs()
    samples = compiled(colorizer.sample, n=3)(variables, inputs, keys(3))
    assert samples.shape == (3, 3, SIZE, SIZE, 2)
    assert jnp.abs(samples[0] - samples[1]).max() > 1
    fewer = compiled(colorizer.sample, n=1)(variables, inputs, keys(3))
    np.testing.assert_allclose(fewer[0], samples[0], atol=1e-3)
    predicted = compiled(colorizer.predict)(variables, inputs)
    proposals, weights = compiled(colorizer.propose, k=2)(variables, inputs)
    np.testing.assert_allclose(proposals[0], predicted, atol=1e-3)
    assert weights is None
    assert colorizer.answers_are_samples
    draws = compiled(colorizer.draw, n=2)(variables, inputs, keys(3))
    assert draws.shape == (2, 3, 8, 8, 2)
    assert colorizer.event_shape((SIZE, SIZE)) == (8, 8)

  def test_samples_belong_to_the_photograph(self):
    colorizer, variables = _method()
    check_owners(compiled(colorizer.sample, n=2), variables)

  def test_a_batch_of_any_size_can_be_exported(self):
    colorizer, variables = _method()
    check_export(colorizer.ask(num_steps=1).predict, variables)

  def test_options_of_all_functions(self):
    options = flow_matching.build(**SMALL).options
    assert options == {'num_steps': 16, 'solver': 'euler', 'guidance': 1.0,
                       'density_steps': 16, 'density_probes': 2}

  @pytest.mark.parametrize(('settings', 'message'), [
      ({'objective': 'diffusion'}, 'objective=diffusion: choose one of flow'),
      ({'network': 'vit'}, 'network=vit: choose one of unet'),
      ({'hint_share': 1.5}, 'hint_share=1.5: choose a share'),
      ({'ab_scale': 0.0}, 'ab_scale=0.0: choose a number above 0'),
      ({'filters': (24,)}, 'filters=24')])
  def test_wrong_settings_are_named(self, settings, message):
    with pytest.raises(UserError, match=message):
      flow_matching.build(**settings)

  @pytest.mark.parametrize(('options', 'message'), [
      ({'solver': 'rk4'}, 'solver=rk4: choose one of euler, heun'),
      ({'num_steps': 0}, 'num_steps=0'),
      ({'density_steps': 0}, 'density_steps=0'),
      ({'density_probes': 1}, 'density_probes=1'),
      ({'guidance': 2.0}, 'guidance=2.0: .* lightness_dropout=0')])
  def test_wrong_options_are_named(self, options, message):
    colorizer = flow_matching.build(lightness_dropout=0., **SMALL).ask(
        **options)
    _, variables = _method(lightness_dropout=0.)
    inputs, ab = grey_inputs(), jnp.zeros((3, SIZE, SIZE, 2))
    with pytest.raises(UserError, match=message):
      jax.eval_shape(lambda v: (
          colorizer.predict(v, inputs),
          colorizer.log_prob(v, inputs, ab, keys(3))), variables)

  def test_wrong_sizes_are_refused(self):
    colorizer, variables = _method()
    with pytest.raises(UserError, match=r'image_size=18 x 16: .* by 4'):
      colorizer.init(jax.random.key(0), (18, 16))
    for side in (18, 17):
      with pytest.raises(UserError, match=rf'image_size=16 x {side}: .* by 4'):
        colorizer.predict(variables, grey(jnp.zeros((1, 16, side, 1))))

  def test_inputs_are_accepted_only_if_they_were_in_training(self):
    check_inputs(functools.partial(flow_matching.build, **SMALL))


def _network(variables, objective):
  """The network of `_method` as a plain function of its inputs."""
  net = velocity.TrunkVelocity(
      trunk.build('unet', SMALL['filters'], jnp.float32), SMALL['width'])
  assert objective in flow_matching.OBJECTIVES
  return jax.jit(lambda field, lightness, is_given, times: net.apply(
      variables, field, lightness, is_given, times, train=False))


class TestLoss:

  def _found(self, objective, train, batch, number=0, **settings):
    colorizer, variables = _method(objective=objective, **settings)
    scalar, aux = compiled(
        colorizer.loss, step=0 if train else None, train=train)(
            variables['params'], variables['model_state'], batch,
            keys(len(batch['image']), number))
    means = {name: float(total / count)
             for name, (total, count) in aux.metrics.items()}
    assert means['loss'] == pytest.approx(float(scalar), rel=1e-5)
    return means

  def _example(self, batch, number=0):
    """What the method draws for a batch, with its keys, in NumPy."""
    drawn = keys(len(batch['image']), number)
    _, ab = lab_of(batch)
    end = np.asarray(ab).reshape(-1, 8, 2, 8, 2, 2).mean((2, 4)) / 20
    start = np.stack([jax.random.normal(key, (8, 8, 2)) for key in
                      key_lib.named(drawn, 'noise')])
    time, span = map(np.asarray, flow_matching._times(drawn, False))
    return end, start, time, span

  @pytest.mark.parametrize('objective', flow_matching.OBJECTIVES)
  def test_held_out_loss_equals_the_formula(self, objective):
    """No hints, no regions and no dropped lightness; spans of 0."""
    _, variables = _method(objective=objective)
    batch = batch_of()
    end, start, time, span = self._example(batch)
    t = time[:, None, None, None]
    field = np.concatenate([(1 - t) * start + t * end, np.zeros_like(t + end)
                            [..., :1], np.ones_like(t + end)[..., :1]], -1)
    times = np.stack([time, span] if objective == 'mean_flow' else [time], -1)
    found = _network(variables, objective)(
        field, lab_of(batch)[0] / 50 - 1, jnp.ones(3), times)
    expected = np.square(found - (end - start)).mean()
    assert self._found(objective, False, batch) == {
        'loss': pytest.approx(expected, rel=1e-4)}

  def test_training_loss_with_known_values_equals_the_formula(self):
    _, variables = _method(objective='flow', hint_share=0.9, region_share=0.5,
                           lightness_dropout=0.5)
    batch = batch_of(6)
    _, start, time, _ = self._example(batch)
    drawn = keys(6)
    end, given = known.draw(
        drawn, jnp.asarray(lab_of(batch)[1]), None, stride=2, hint_share=0.9,
        region_share=0.5)
    end, mask = np.asarray(end) / 20, np.asarray(given.mask)
    assert 0.1 < mask.mean() < 0.9
    is_given = np.array([not jax.random.bernoulli(key, 0.5) for key in
                         key_lib.named(drawn, 'lightness dropout')], np.float32)
    assert set(is_given) == {0, 1}
    t = time[:, None, None, None]
    x = np.where(mask > 0, end, (1 - t) * start + t * end)
    found = _network(variables, 'flow')(
        np.concatenate([x, mask, given.region], -1), lab_of(batch)[0] / 50 - 1,
        is_given, time[:, None])
    error = (1 - mask) * np.square(found - (end - start))
    expected = (error.sum((1, 2, 3)) / (2 * (1 - mask).sum((1, 2, 3)))).mean()
    assert self._found('flow', True, batch, hint_share=0.9, region_share=0.5,
                       lightness_dropout=0.5) == {
                           'loss': pytest.approx(expected, rel=1e-4)}

  def test_mean_flow_loss_equals_the_formula_by_finite_differences(self):
    shares = {'hint_share': 0., 'region_share': 0., 'lightness_dropout': 0.}
    _, variables = _method(objective='mean_flow', **shares)
    batch = batch_of(8)
    end, start, _, _ = self._example(batch, 3)
    time, span = (np.asarray(x, np.float64) for x in
                  flow_matching._times(keys(8, 3), True))
    assert (span > 0).sum() >= 2
    assert (span == 0).sum() >= 2
    net = _network(variables, 'mean_flow')
    direction = end - start

    def u(shift):
      """The mean velocity further along the path; the span ends there too."""
      t = (time + shift)[:, None, None, None]
      x = (1 - t) * start + t * end
      field = np.concatenate([x, 0 * x[..., :1], 0 * x[..., :1] + 1], -1)
      return np.asarray(net(field, lab_of(batch)[0] / 50 - 1, np.ones(8),
                            np.stack([time + shift, span - shift], -1)),
                        np.float64)

    change = (u(5e-3) - u(-5e-3)) / 1e-2
    target = direction + span[:, None, None, None] * change
    errors = np.square(u(0) - target).mean((1, 2, 3))
    expected, plain = errors.mean(), np.square(u(0) - direction).mean()
    found = self._found('mean_flow', True, batch, 3, **shares)
    assert abs(plain - expected) > 20 * abs(found['error'] - expected)
    assert found['error'] == pytest.approx(expected, rel=2e-3)
    assert found['loss'] == pytest.approx(
        (errors / (errors + 0.01)).mean(), rel=2e-3)

  def test_target_and_weight_of_mean_flow_are_constants(self):
    """The gradient is that of weighted squared distances to a fixed target."""
    shares = {'hint_share': 0., 'region_share': 0., 'lightness_dropout': 0.}
    colorizer, variables = _method(objective='mean_flow', **shares)
    batch, drawn = batch_of(8), keys(8, 3)
    gradient = jax.jit(jax.grad(lambda p: colorizer.loss(
        p, {}, batch, drawn, step=0, train=True)[0]))(variables['params'])
    end, start, _, _ = self._example(batch, 3)
    time, span = flow_matching._times(drawn, True)
    t = time[:, None, None, None]
    net = velocity.TrunkVelocity(
        trunk.build('unet', SMALL['filters'], jnp.float32), SMALL['width'])

    def u(params, x, time, span):
      field = jnp.concatenate([x, 0 * x[..., :1], 0 * x[..., :1] + 1], -1)
      return net.apply({'params': params}, field,
                       color.normalize_lightness(lab_of(batch)[0]),
                       jnp.ones(8), jnp.stack([time, span], -1), train=False)

    point = ((1 - t) * start + t * end, time, span)
    _, change = jax.jit(lambda p: jax.jvp(
        functools.partial(u, p), point,
        (jnp.asarray(end - start, jnp.float32), jnp.ones(8), -jnp.ones(8))))(
            variables['params'])
    target = end - start + span[:, None, None, None] * change

    def errors(params):
      return jnp.square(u(params, *point) - target).mean((1, 2, 3))

    weights = 1 / (jax.jit(errors)(variables['params']) + 0.01)
    expected = jax.jit(jax.grad(lambda p: (weights * errors(p)).mean()))(
        variables['params'])
    scale = max(float(jnp.abs(x).max()) for x in jax.tree.leaves(expected))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(
        x, y, atol=2e-3 * scale), gradient, expected)

  def test_times_and_spans(self):
    time, span = jax.jit(lambda k: flow_matching._times(k, True))(keys(4000))
    assert float((span > 0).mean()) == pytest.approx(0.5, abs=0.03)
    assert float(time.min()) >= 0
    assert float((time + span).max()) <= 1
    # Uniform where there is no span; the smaller of two uniform numbers else.
    alone = np.sort(np.asarray(time)[np.asarray(span) == 0])
    assert np.abs(alone - np.linspace(0, 1, len(alone))).max() < 0.04
    assert float(time[span > 0].mean()) == pytest.approx(1 / 3, abs=0.03)
    assert float(span[span > 0].mean()) == pytest.approx(1 / 3, abs=0.03)

  def test_padding_does_not_change_the_loss(self):
    check_padding(*_method())

  def test_gradients_reach_every_parameter(self):
    for objective in flow_matching.OBJECTIVES:
      check_gradients(*_method(objective=objective))


class TestSampling:

  def test_one_euler_step_by_hand(self):
    """x + v(x, 0), from noise, in Lab units."""
    colorizer, variables = _method()
    inputs = grey_inputs()
    found = compiled(colorizer.ask(num_steps=1).draw, n=1)(
        variables, inputs, keys(3))[0]
    start = np.stack([jax.random.normal(key, (8, 8, 2)) for key in
                      key_lib.named(key_lib.of_answers(keys(3), 1)[0],
                                    'noise')])
    field = np.concatenate(
        [start, 0 * start[..., :1], 0 * start[..., :1] + 1], -1)
    step = _network(variables, 'flow')(
        field, inputs['lightness'] / 50 - 1, np.ones(3), np.zeros((3, 1)))
    np.testing.assert_allclose(found, 20 * (start + step), atol=1e-2)

  def test_mean_velocities_are_those_of_the_step(self):
    """Two Euler steps of mean flow are u(x, 0, 1/2), then u(x, 1/2, 1/2)."""
    colorizer, variables = _method(objective='mean_flow')
    inputs = grey_inputs()
    found = compiled(colorizer.ask(num_steps=2).draw, n=1)(
        variables, inputs, keys(3))[0]
    x = np.stack([jax.random.normal(key, (8, 8, 2)) for key in
                  key_lib.named(key_lib.of_answers(keys(3), 1)[0], 'noise')])
    net = _network(variables, 'mean_flow')
    for time in (0.0, 0.5):
      field = np.concatenate([x, 0 * x[..., :1], 0 * x[..., :1] + 1], -1)
      x = x + np.asarray(net(
          field, inputs['lightness'] / 50 - 1, np.ones(3),
          np.full((3, 2), [time, 0.5]))) / 2
    np.testing.assert_allclose(found, 20 * x, atol=2e-2)

  def test_heun_is_nearer_to_the_flow_than_euler(self):
    colorizer, variables = _method()

    def draw(**options):
      return compiled(colorizer.ask(**options).draw, n=1)(
          variables, grey_inputs(), keys(3))

    exact = draw(num_steps=128, solver='heun')
    euler, heun = (float(jnp.abs(draw(num_steps=16, solver=name) - exact
                                 ).mean()) for name in ode.SOLVERS)
    assert heun < 0.3 * euler

  def test_guidance(self):
    """1 changes nothing, 0 does not see the lightness, and it is linear."""
    colorizer, variables = _method()
    inputs, other = grey_inputs(), grey(100 - grey_inputs()['lightness'])

    def draw(inputs, **options):
      return compiled(colorizer.ask(num_steps=1, **options).draw, n=1)(
          variables, inputs, keys(3))

    plain = draw(inputs)
    np.testing.assert_array_equal(draw(inputs, guidance=1.0), plain)
    np.testing.assert_allclose(
        draw(inputs, guidance=1 + 1e-6), plain, atol=1e-3)
    without = draw(inputs, guidance=0.0)
    np.testing.assert_allclose(draw(other, guidance=0.0), without, atol=1e-4)
    assert jnp.abs(plain - without).max() > 0.1
    np.testing.assert_allclose(
        draw(inputs, guidance=3.0), without + 3 * (plain - without), atol=1e-2)

  @pytest.mark.parametrize('options', [
      {}, {'num_steps': 1}, {'solver': 'heun', 'guidance': 2.0,
                             'num_steps': 3}])
  def test_hints_are_met_exactly_and_the_outside_is_grey(self, options):
    colorizer, variables = _method()
    inputs = hinted()
    samples = compiled(colorizer.ask(**options).sample, n=2)(
        variables, inputs, keys(3))
    fields = compiled(colorizer.ask(**options).draw, n=2)(
        variables, inputs, keys(3))
    check_known_values(inputs, samples, fields)

  def test_known_values_influence_the_others(self):
    colorizer, variables = _method()
    check_influence(compiled(colorizer.draw, n=2), variables)
