"""Coarse color symbols, drawn one after the other, then colors in parallel.

After ColTran (Kumar, Weissenborn and Kalchbrenner 2021, arXiv:2102.04432) and
PixColor (Guadarrama et al. 2017, arXiv:1705.07208). The ab field y of a
photograph is averaged over blocks, and the color of each block is rounded to
one of Q bins: the symbols s. A causal transformer predicts them in raster order
(row by row), and an upsampler the field, each given the lightness x:

    p(y, s | x) = prod_i p(s_i | s_1, ..., s_{i-1}, x) prod_d q(y_d | s, x).

q is a logistic distribution for each value. The transformer has full attention
over all earlier places (ColTran's is axial). Like both papers, this is a
coarse model with an exact likelihood and a parallel one on top.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from colorjax import color, quantize, resample
from colorjax import keys as key_lib
from colorjax.colorizer import (
    FROZEN,
    Batch,
    Colorizer,
    Inputs,
    Variables,
    constant_keys,
    init_variables,
    masked_mean,
    sampler,
)
from colorjax.errors import UserError
from colorjax.methods import checks, encoders, examples
from colorjax.methods import known as known_lib
from colorjax.methods.known import Known
from colorjax.models import autoregressive, trunk
from colorjax.models.residual import GROUP_SIZE

_MIN_SCALE = 0.01
"""Least scale of the logistic distributions, network units: 0.2 in Lab."""

_INITIAL_SCALE = 0.2
"""Their scale at raw scale 0, network units: 4 in Lab."""


class _Symbols(NamedTuple):
  """Symbols and which of them are known.

  Attributes:
    symbols: int32 [B, n, m].
    is_known: bool [B, n, m].
  """
  symbols: jax.Array
  is_known: jax.Array


def build(
    *,
    network: str = 'unet',
    trunk_settings: Mapping[str, Any] | None = None,
    filters: Sequence[int] = (32, 64, 128, 256),
    symbol_stride: int = 4,
    bin_spacing: int = 10,
    width: int = 128,
    depth: int = 4,
    num_heads: int = 4,
    upsampler_width: int = 32,
    symbol_weight: float = 1.0,
    upsampler_weight: float = 1.0,
    hint_share: float = 0.25,
    region_share: float = 0.1,
    dtype: str = 'float32',
) -> Colorizer:
  """Builds the method.

  Options: `temperature` of `sample` and `propose`, and `predict_temperature` of
  `predict`. A temperature divides the logits of symbols; with 0 each symbol is
  the most probable one. Proposals and the prediction are samples with the same
  keys for all photographs. (After 400 steps on flowers, samples of eight
  photographs had a mean chroma of 24 with temperature 1, and odd patches of
  color; 18 with 0.8 and 14 with 0.5. The photographs had 17.)

  `log_prob` is a lower bound of the log density of the ab field at the
  resolution of the trunk (`event_shape`); the photograph's ab is averaged to
  that resolution. The density is a sum over all symbol fields, of which the
  bound has one term: that of the field's own symbols s(y),

      log p(s(y)) + log q(y | s(y)) <= log sum_s p(s) q(y | s).

  Both parts of the term are exact. Given hints or a region, the density is that
  of the unknown values, given the known ones. `draw` draws s, then y, which are
  exact samples of that density. `sample` draws s alone: its colors are the
  locations of q, since independent noise in each value would be grain.

  The loss is the bound, in nats per value, with a weight for each of its two
  parts. Its metric `symbol_bits` is the first part in bits per symbol,
  `upsampler_bits` the second part in bits per value.

  Hints and regions: the network sees the known values of the field and where
  they are. A symbol is known if all of its block is, or all that is inside the
  region; its color is the mean over that. Known symbols are put into the
  sequence, the others are drawn given these and all known values, and a
  coloring has the known values exactly.

  Args:
    network: a key of `models.trunk.TRUNKS`.
    trunk_settings: further settings of the trunk, see its `build`.
    filters: channels of the trunk's scales.
    symbol_stride: side of the blocks with one symbol, in pixels; a multiple of
      the trunk's stride.
    bin_spacing: distance between the colors of symbols, Lab units, a multiple
      of 10. The colors are those of the 313 published bins that lie on this
      grid (`quantize.published_bins`); 10 gives all of them.
    width: channels of the transformer, a multiple of `num_heads`.
    depth: layers of the transformer.
    num_heads: attention heads of the transformer.
    upsampler_width: channels of the upsampler.
    symbol_weight: weight of the symbols' part of the loss.
    upsampler_weight: weight of the upsampler's part of the loss.
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
  checks.check_choice('network', network, trunk.TRUNKS)
  checks.check_shares(hint_share=hint_share, region_share=region_share)
  checks.check_not_negative(
      symbol_weight=symbol_weight, upsampler_weight=upsampler_weight)
  body = trunk.build(network, filters, jnp.dtype(dtype), trunk_settings)
  _check_sizes(symbol_stride, body.stride, width, num_heads, depth,
               upsampler_width)
  bins = _bins(bin_spacing)
  ratio = symbol_stride // body.stride
  divisor = math.lcm(body.divisor, symbol_stride)
  net = autoregressive.SymbolsAndColors(
      body, tuple(map(tuple, (bins / known_lib.UNIT).tolist())), ratio,
      width=width, depth=depth, num_heads=num_heads,
      upsampler_width=upsampler_width,
      dtype=jnp.dtype(dtype))

  def init(key: jax.Array, image_shape: tuple[int, int]) -> Variables:
    checks.check_sides(image_shape, divisor)
    height, width = event_shape(image_shape)
    return init_variables(
        net, key, jnp.zeros((1, *image_shape, 1)),
        jnp.zeros((1, height, width, 4)),
        jnp.zeros((1, height // ratio, width // ratio), jnp.int32),
        train=False)

  def event_shape(shape: tuple[int, int]) -> tuple[int, int]:
    return shape[0] // body.stride, shape[1] // body.stride

  def apply(variables: Variables, method: str, *args, **kwargs) -> Any:
    """Calls a method of the network."""
    return net.apply({'params': variables['params'],
                      **variables['model_state']}, *args, method=method,
                     **kwargs)

  def network_inputs(lightness: jax.Array, known: Known
                     ) -> tuple[jax.Array, jax.Array]:
    checks.check_sides(lightness.shape[1:3], divisor)
    return color.normalize_lightness(lightness), known.channels()

  def to_symbols(field: jax.Array, known: Known) -> _Symbols:
    """The symbols of a field [B, h, w, 2], and which of them are known."""
    coarse = known_lib.masked_pool(field, known.region, ratio)
    unknown = resample.mean_pool(1 - known.mask, ratio)[..., 0]
    return _Symbols(quantize.nearest_bin(coarse, bins), unknown == 0)

  def log_probs(logits: jax.Array, colors: jax.Array, given: _Symbols,
                field: jax.Array, known: Known) -> tuple[jax.Array, jax.Array]:
    """Log probability of unknown symbols, log density of unknown values, [B].

    The second is in Lab units.
    """
    nats = jnp.take_along_axis(jax.nn.log_softmax(logits),
                               given.symbols[..., None], axis=-1)[..., 0]
    values = jax.scipy.stats.logistic.logpdf(
        field / known_lib.UNIT, colors[..., 0], _scale(colors[..., 1]))
    return (jnp.where(given.is_known, 0.0, nats).sum((1, 2)),
            known.sum_unknown(values - math.log(known_lib.UNIT)))

  def loss(params, model_state, batch: Batch, keys: jax.Array, *,
           step: jax.Array | None, train: bool):
    del step
    lightness, ab, _ = examples.of_batch(batch)
    field, known = known_lib.draw(
        keys, ab, batch.get('region'), stride=body.stride,
        hint_share=hint_share * train, region_share=region_share * train)
    given = to_symbols(field, known)
    (logits, colors), new_state = net.apply(
        {'params': params, **model_state}, *network_inputs(lightness, known),
        given.symbols, train=train,
        mutable=[name for name in model_state if name != FROZEN])
    symbol_nats, nats = log_probs(logits, colors, given, field, known)
    num_values = jnp.maximum(known.num_unknown(), 1)
    num_symbols = jnp.maximum((~given.is_known).sum((1, 2)), 1)
    metrics = {
        'loss': -(symbol_weight * symbol_nats + upsampler_weight * nats
                  ) / num_values,
        'symbol_bits': -symbol_nats / num_symbols / math.log(2),
        'upsampler_bits': -nats / num_values / math.log(2)}
    return masked_mean(metrics, batch['padding_mask'],
                       {**model_state, **new_state} if train else model_state)

  def encode(variables: Variables, inputs: Inputs, known: Known) -> jax.Array:
    """The features of photographs, [B, h, w, C]."""
    return apply(variables, 'encode',
                 *network_inputs(inputs['lightness'], known), train=False)

  def draw_symbols(variables: Variables, places: jax.Array, given: _Symbols,
                   keys: jax.Array, temperature: float) -> jax.Array:
    """Draws the unknown symbols, int32 [B, n, m]."""
    batch, rows, columns = given.symbols.shape
    keys = key_lib.named(keys, 'symbols')

    def one(carry, place):
      padded, cache = carry
      row, column = place // columns, place % columns
      above = jax.lax.dynamic_slice(padded, (0, row, column), (batch, 1, 3))
      before = jnp.where(column > 0, padded[:, row + 1, column],
                         padded[:, row, columns])
      logits, cache = apply(
          variables, 'step', places[:, row, column],
          jnp.concatenate([above[:, 0], before[:, None]], axis=-1), cache,
          place)
      if temperature:
        drawn = jax.vmap(jax.random.categorical)(
            jax.vmap(lambda key: jax.random.fold_in(key, place))(keys),
            logits / temperature)
      else:
        drawn = logits.argmax(-1)
      symbol = jnp.where(given.is_known[:, row, column],
                         given.symbols[:, row, column], drawn)
      return (padded.at[:, row + 1, column + 1].set(
          symbol.astype(jnp.int32)), cache), None

    nothing = jnp.full_like(given.symbols, len(bins))
    start = (autoregressive.padded_symbols(nothing, len(bins)),
             net.empty_cache(batch, rows * columns))
    (padded, _), _ = jax.lax.scan(one, start, jnp.arange(rows * columns))
    return padded[:, 1:, 1:-1]

  def fields(variables: Variables, inputs: Inputs, keys: jax.Array, n: int, *,
             temperature: float, noisy: bool) -> jax.Array:
    """Random fields, Lab units, [n, B, h, w, 2]."""
    known = known_lib.of_inputs(inputs, body.stride, divisor)
    features = encode(variables, inputs, known)
    places = apply(variables, 'at_places', features)
    given = to_symbols(known.ab, known)
    if 'hint_ab' not in inputs:
      # All that may be known is grey. XLA would find its symbols while it
      # compiles, which takes seconds.
      grey = int(np.square(bins).sum(-1).argmin())
      given = given._replace(symbols=jnp.full_like(given.symbols, grey))

    def field(keys):
      symbols = draw_symbols(variables, places, given, keys, temperature)
      colors = apply(variables, 'upsample', features, symbols)
      found = colors[..., 0]
      if noisy:
        found += _scale(colors[..., 1]) * jax.vmap(
            lambda key: jax.random.logistic(key, found.shape[1:]))(
                key_lib.named(keys, 'values'))
      return known.put(known.ab, known_lib.UNIT * found)

    # One after the other: all at once would need n times the memory.
    return jax.lax.map(field, key_lib.of_answers(keys, n))

  def draw(variables: Variables, inputs: Inputs, keys: jax.Array, n: int
           ) -> jax.Array:
    return fields(variables, inputs, keys, n, temperature=1.0, noisy=True)

  def sample(variables: Variables, inputs: Inputs, keys: jax.Array, n: int, *,
             temperature: float = 0.8) -> jax.Array:
    checks.check_not_negative(temperature=temperature)
    return known_lib.colorings(
        fields(variables, inputs, keys, n, temperature=temperature,
               noisy=False), inputs)

  def predict(variables: Variables, inputs: Inputs, *,
              predict_temperature: float = 0.5) -> jax.Array:
    checks.check_not_negative(predict_temperature=predict_temperature)
    return sample(variables, inputs, constant_keys(inputs), 1,
                  temperature=predict_temperature)[0]

  def log_prob(variables: Variables, inputs: Inputs, ab: jax.Array,
               keys: jax.Array) -> jax.Array:
    del keys  # Both parts of the bound are exact.
    known = known_lib.of_inputs(inputs, body.stride, divisor)
    field = known_lib.field_of(ab, inputs, known, body.stride)
    given = to_symbols(field, known)
    features = encode(variables, inputs, known)
    places = apply(variables, 'at_places', features)
    logits = apply(variables, 'predict_symbols', places, given.symbols)
    colors = apply(variables, 'upsample', features, given.symbols)
    symbol_nats, nats = log_probs(logits, colors, given, field, known)
    return symbol_nats + nats

  return sampler(
      init=init, loss=loss, sample=sample, predict=predict, draw=draw,
      log_prob=log_prob, log_prob_kind='lower_bound', event_shape=event_shape,
      backbones=encoders.pretrained(body),
      accepts=known_lib.accepted_inputs(hint_share, region_share))


def _check_sizes(symbol_stride: int, stride: int, width: int, num_heads: int,
                 depth: int, upsampler_width: int) -> None:
  """Checks the sizes of the network."""
  if symbol_stride < stride or symbol_stride % stride:
    raise UserError(f'symbol_stride={symbol_stride}: choose a multiple of '
                    f'{stride}, the stride of this network')
  checks.check_counts(depth=depth)
  if num_heads < 1 or width < 1 or width % num_heads:
    raise UserError(f'width={width}: choose a multiple of '
                    f'num_heads={num_heads}')
  if upsampler_width < 1 or upsampler_width % GROUP_SIZE:
    raise UserError(f'upsampler_width={upsampler_width}: choose a multiple of '
                    f'{GROUP_SIZE}')


def _bins(spacing: int) -> np.ndarray:
  """The published bins on a grid with this spacing, float32 [Q, 2]."""
  if spacing < 1 or spacing % quantize.GRID or spacing > color.AB_SCALE:
    raise UserError(f'bin_spacing={spacing}: choose a multiple of '
                    f'{quantize.GRID:g}, at most {color.AB_SCALE:g}')
  bins = quantize.published_bins()
  return bins[(bins % spacing == 0).all(-1)]


def _scale(raw: jax.Array) -> jax.Array:
  """Raw scales to scales of logistic distributions, network units."""
  initial = math.log(math.expm1(_INITIAL_SCALE - _MIN_SCALE))
  return _MIN_SCALE + jax.nn.softplus(raw + initial)
