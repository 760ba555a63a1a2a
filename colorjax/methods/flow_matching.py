"""Conditional flow matching: a velocity field that carries noise to colors.

Each photograph's ab field y, in units of `ab_scale`, and noise e ~ N(0, I) are
joined by a straight path (Lipman et al. 2023, arXiv:2210.02747):

    x_t = (1 - t) e + t y,    dx_t / dt = y - e.

A network v(x_t, t; lightness) learns the mean of y - e given x_t. A sample
starts as noise and follows v from t = 0 to 1; its density follows from the
divergence of v (`colorjax.ode`).

With objective='mean_flow', the network learns the mean velocity u(x_t, t, d)
over the time from t to t + d, so that one step from noise, x + u(x, 0, 1), is a
sample (Geng et al. 2025, arXiv:2505.13447). Along a path,

    u = v + d (D_x u v + D_t u - D_d u),

where v = u(x, t, 0) is the velocity at t. The alternative, a shortcut model
(Frans et al. 2024, arXiv:2410.12557), learns that two steps equal one of twice
the length. Mean flow was chosen because it has no second hyperparameter, the
shortest step, and does not learn from its own errors; its published one-step
samples are the better ones. It is also cheaper here: which photographs of a
batch get which target is random, so a shortcut would need two more evaluations
of the network for all of them, and mean flow needs one derivative.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from colorjax import color, ode
from colorjax import keys as key_lib
from colorjax.colorizer import (
    FROZEN,
    Batch,
    Colorizer,
    Inputs,
    Variables,
    init_variables,
    masked_mean,
    passes_options,
    sampler,
)
from colorjax.errors import UserError
from colorjax.methods import checks, encoders, examples
from colorjax.methods import known as known_lib
from colorjax.methods.known import Known
from colorjax.models import trunk, velocity

OBJECTIVES = ('flow', 'mean_flow')
"""What the network learns: the velocity, or mean velocities over spans too."""

_SPAN_SHARE = 0.5
"""Share of training examples with a span above 0, with mean flow. The others
are those of flow matching. Published are 25 % and, hardly worse, 50 %."""

_WEIGHT_OFFSET = 1e-2
"""Added to squared errors before mean flow divides by them, see `build`."""


def build(
    *,
    objective: str = 'flow',
    network: str = 'unet',
    trunk_settings: Mapping[str, Any] | None = None,
    filters: Sequence[int] = (32, 64, 128, 256),
    width: int = 128,
    ab_scale: float = 20.0,
    lightness_dropout: float = 0.1,
    hint_share: float = 0.25,
    region_share: float = 0.1,
    dtype: str = 'float32',
) -> Colorizer:
  """Builds the flow.

  Options: `sample`, `propose`, `predict` and `draw` take `num_steps`, `solver`
  (a key of `ode.SOLVERS`; Heun's method evaluates the network twice in a step)
  and `guidance`. `log_prob` takes `density_steps` and `density_probes`, see
  `ode.pull_back`, and `guidance`. With guidance w, the velocity is
  v0 + w (v - v0), where v0 is the velocity without lightness (Ho and Salimans
  2022, arXiv:2207.12598).

  The training loss of mean flow is each photograph's squared error divided by
  itself plus a constant, without a gradient through the divisor, as published:
  without this weight a few large targets dominate. (On two colors drawn at
  random, one-step samples missed the nearer color by 4 % of the distance
  between the two with the weight and by 26 % without.) `error` is the squared
  error. The loss on held-out photographs is that of flow matching with either
  objective.

  With objective='flow' and one step, a sample is the conditional mean of the
  coloring, as of a regression. With objective='mean_flow', Euler's method uses
  mean velocities. Heun's method and `log_prob` use the velocity itself, so
  `log_prob` is the density of samples with many steps.

  `log_prob` is the density of the ab field at the resolution of the trunk
  (`event_shape`); the photograph's ab is averaged to that resolution. It is
  exact, up to the error of the solver, for fields of at most `ode.MAX_EXACT`
  values, and an estimate for others. (For four photographs of flowers at
  64 x 64, a short-trained network gave 0.02 to 0.06 bits/dim less with 8 steps
  than with 32; the standard errors were 0.002 to 0.012.) Given hints or a
  region, it is the density of the unknown values, given the known ones.

  Hints and regions: known values are put into the field at every time, in
  training and in sampling, and masks tell the network where. The network thus
  generates the unknown values around them, and a coloring has them exactly.

  Args:
    objective: one of OBJECTIVES.
    network: a key of `models.trunk.TRUNKS`.
    trunk_settings: further settings of the trunk, see its `build`.
    filters: channels of the trunk's scales.
    width: length of the vector that encodes times.
    ab_scale: Lab units per unit of the field; about the standard deviation of
      ab in the photographs.
    lightness_dropout: share of training photographs whose lightness the
      network does not see; guidance needs it.
    hint_share: share of training photographs with random hints; with 0 the
      method does not accept hints itself.
    region_share: share of training photographs with a random region, if the
      batch has none; with 0 the method does not accept regions itself.
    dtype: compute type of the network, 'float32' or 'bfloat16'.

  Returns:
    A Colorizer.

  Raises:
    UserError: a setting has a value that does not exist, or the network cannot
      take these filters.
  """
  checks.check_choice('objective', objective, OBJECTIVES)
  checks.check_choice('network', network, trunk.TRUNKS)
  checks.check_shares(lightness_dropout=lightness_dropout,
                      hint_share=hint_share, region_share=region_share)
  if ab_scale <= 0:
    raise UserError(f'ab_scale={ab_scale}: choose a number above 0')
  body = trunk.build(network, filters, jnp.dtype(dtype), trunk_settings)
  net = velocity.TrunkVelocity(body, width, jnp.dtype(dtype))
  has_spans = objective == 'mean_flow'

  def init(key: jax.Array, image_shape: tuple[int, int]) -> Variables:
    checks.check_sides(image_shape, body.divisor)
    return init_variables(
        net, key, jnp.zeros((1, *event_shape(image_shape), 4)),
        jnp.zeros((1, *image_shape, 1)), jnp.ones(1),
        jnp.zeros((1, 1 + has_spans)), train=False)

  def event_shape(shape: tuple[int, int]) -> tuple[int, int]:
    return shape[0] // body.stride, shape[1] // body.stride

  def apply(variables: Variables, x: jax.Array, lightness: jax.Array,
            known: Known, time: jax.Array, span: jax.Array, *,
            is_given: jax.Array, train: bool = False):
    """The mean velocity [B, h, w, 2], 0 where known, and the new state."""
    checks.check_sides(lightness.shape[1:3], body.divisor)
    state = variables['model_state']
    times = jnp.stack([time, span] if has_spans else [time], axis=-1)
    out, new_state = net.apply(
        {'params': variables['params'], **state},
        jnp.concatenate([x, known.masks()], axis=-1),
        color.normalize_lightness(lightness), is_given, times, train=train,
        mutable=[name for name in state if name != FROZEN])
    return known.put(0.0, out), new_state

  def noise(keys: jax.Array, shape: Sequence[int]) -> jax.Array:
    return jax.vmap(lambda key: jax.random.normal(key, tuple(shape)))(
        key_lib.named(keys, 'noise'))

  def loss(params, model_state, batch: Batch, keys: jax.Array, *,
           step: jax.Array | None, train: bool):
    del step
    variables = {'params': params, 'model_state': model_state}
    lightness, ab, _ = examples.of_batch(batch)
    end, known = known_lib.draw(
        keys, ab, batch.get('region'), stride=body.stride,
        hint_share=hint_share * train, region_share=region_share * train)
    end /= ab_scale
    start = noise(keys, end.shape[1:])
    time, span = _times(keys, has_spans and train)
    is_given = jax.vmap(lambda key: 1.0 - jax.random.bernoulli(
        key, lightness_dropout * train))(
            key_lib.named(keys, 'lightness dropout'))
    t = time[:, None, None, None]
    x = known.put(end, (1 - t) * start + t * end)
    direction = known.put(0.0, end - start)

    def mean_velocity(x, time, span):
      return apply(variables, x, lightness, known, time, span,
                   is_given=is_given, train=train)

    target = direction
    if has_spans and train:
      # Along the path the time advances and the end of the span stays.
      ones = jnp.ones_like(time)
      found, change, new_state = jax.jvp(
          mean_velocity, (x, time, span), (direction, ones, -ones),
          has_aux=True)
      target += span[:, None, None, None] * jax.lax.stop_gradient(change)
    else:
      found, new_state = mean_velocity(x, time, span)
    error = known.sum_unknown(jnp.square(found - target)) / jnp.maximum(
        known.num_unknown(), 1)
    metrics = {'loss': error}
    if has_spans and train:
      divisor = jax.lax.stop_gradient(error + _WEIGHT_OFFSET)
      metrics = {'loss': error / divisor, 'error': error}
    return masked_mean(metrics, batch['padding_mask'],
                       {**model_state, **new_state} if train else model_state)

  def flow(variables: Variables, inputs: Inputs, known: Known, *,
           guidance: float, span: float = 0.0) -> ode.Derivative:
    """The velocity (x, time) -> [B, h, w, 2] that carries noise to colors."""
    if guidance != 1 and not lightness_dropout:
      raise UserError(f'guidance={guidance}: this model was trained with '
                      'lightness_dropout=0; only guidance=1 is possible')

    def one(x, time, given):
      full = jnp.ones(x.shape[0])
      return apply(variables, x, inputs['lightness'], known, time * full,
                   span * full, is_given=given * full)[0]

    def guided(x, time):
      found = one(x, time, 1.0)
      if guidance == 1:
        return found
      without = one(x, time, 0.0)
      return without + guidance * (found - without)

    return guided

  def draw(variables: Variables, inputs: Inputs, keys: jax.Array, n: int, *,
           num_steps: int = 16, solver: str = 'euler', guidance: float = 1.0
           ) -> jax.Array:
    checks.check_choice('solver', solver, ode.SOLVERS)
    checks.check_counts(num_steps=num_steps)
    known = known_lib.of_inputs(inputs, body.stride, body.divisor)
    carried = flow(variables, inputs, known, guidance=guidance,
                   span=1 / num_steps if solver == 'euler' else 0.0)

    def field(keys):
      start = known.put(known.ab / ab_scale, noise(keys, known.ab.shape[1:]))
      return ab_scale * ode.solve(
          carried, start, solver=solver, num_steps=num_steps)

    # One after the other: all at once would need n times the memory.
    fields = jax.lax.map(field, key_lib.of_answers(keys, n))
    return known.put(known.ab, fields)

  @passes_options(draw)
  def sample(variables: Variables, inputs: Inputs, keys: jax.Array, n: int,
             **options):
    return known_lib.colorings(
        draw(variables, inputs, keys, n, **options), inputs)

  def log_prob_and_error(
      variables: Variables, inputs: Inputs, ab: jax.Array, keys: jax.Array, *,
      density_steps: int = 16, density_probes: int = 2, guidance: float = 1.0
  ) -> tuple[jax.Array, jax.Array]:
    checks.check_counts(density_steps=density_steps)
    if density_probes < 2:
      raise UserError(f'density_probes={density_probes}: use at least 2, from '
                      'which the standard error is computed')
    known = known_lib.of_inputs(inputs, body.stride, body.divisor)
    field = known_lib.field_of(ab, inputs, known, body.stride)
    pulled = ode.pull_back(
        flow(variables, inputs, known, guidance=guidance),
        field / ab_scale, keys,
        num_steps=density_steps, num_probes=density_probes)
    # Of each value: of the noise, and of the change of units.
    nats = jax.scipy.stats.norm.logpdf(pulled.start) - jnp.log(ab_scale)
    return known.sum_unknown(nats) - pulled.log_expansion, pulled.error

  @passes_options(log_prob_and_error)
  def log_prob(variables: Variables, inputs: Inputs, ab: jax.Array,
               keys: jax.Array, **options):
    return log_prob_and_error(variables, inputs, ab, keys, **options)[0]

  def kind(shape: tuple[int, int]) -> str:
    height, width = event_shape(shape)
    return 'exact' if ode.is_exact(2 * height * width) else 'estimate'

  return sampler(
      init=init, loss=loss, sample=sample, draw=draw, log_prob=log_prob,
      log_prob_and_error=log_prob_and_error, log_prob_kind=kind,
      event_shape=event_shape, backbones=encoders.pretrained(body),
      accepts=known_lib.accepted_inputs(hint_share, region_share))


def _times(keys: jax.Array, has_spans: bool) -> tuple[jax.Array, jax.Array]:
  """Times and spans of training examples, [B] each; t + span is at most 1."""
  def pair(key):
    return jnp.sort(jax.random.uniform(key, (2,)))

  if not has_spans:
    time = jax.vmap(jax.random.uniform)(key_lib.named(keys, 'time'))
    return time, jnp.zeros_like(time)
  first, last = jax.vmap(pair, out_axes=1)(key_lib.named(keys, 'time'))
  is_span, is_last = (jax.vmap(lambda key, p=p: jax.random.bernoulli(key, p))(
      key_lib.named(keys, purpose)) for purpose, p in (
          ('span', _SPAN_SHARE), ('end', 0.5)))
  # Without a span, either of the two times, so that times are uniform.
  time = jnp.where(is_span | ~is_last, first, last)
  return time, jnp.where(is_span, last - first, 0.0)
