"""Colorization as classification (Zhang, Isola and Efros, ECCV 2016).

The ab plane is divided into Q bins (`colorjax.quantize`). The network predicts
a distribution over the bins for each pixel of its output, trained by
cross-entropy with soft targets. The predicted color is the annealed mean of the
distribution. At temperature T = 1 this is its mean, which looks faded where the
network is uncertain; as T goes to 0 it tends to the mode, which is vivid but
spotty. The published T is 0.38.

Most pixels are nearly grey, so rare colors are seldom predicted unless they
have a larger weight. `rebalance` weights them by the prior of the training
data.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from colorjax import color, quantize, resample
from colorjax import keys as key_lib
from colorjax.colorizer import (
    Batch,
    Colorizer,
    Inputs,
    Variables,
    deterministic,
    init_variables,
    masked_mean,
)
from colorjax.errors import UserError
from colorjax.losses import classification
from colorjax.methods import encoders, examples, rebalancing
from colorjax.methods.checks import check_choice, check_sides
from colorjax.models import classifier, trunk

READOUTS = ('annealed_mean', 'mean', 'mode')
"""How a color is computed from a pixel's distribution; see `build`."""

SAMPLINGS = ('independent', 'shared')
"""Whether the pixels of a sample share their noise; see `build`."""


def build(
    *,
    bins: Sequence[Sequence[float]] | None = None,
    prior: Sequence[float] | None = None,
    rebalance: float | None = None,
    network: str = 'published',
    trunk_settings: Mapping[str, Any] | None = None,
    filters: Sequence[int] = (64, 128, 256, 512),
    num_neighbors: int = quantize.NUM_NEIGHBORS,
    sigma: float = quantize.SIGMA,
    dtype: str = 'float32',
) -> Colorizer:
  """Builds the classification method.

  The pixels are independent given the photograph. Its functions are:

    `log_prob`: the sum of the pixels' log densities at the network's output
    resolution (`event_shape`: a quarter of the input's for 'published', half of
    it for 'unet'); the photograph's ab is averaged to that resolution. The
    probability of a bin is uniform over its square of 10 x 10 ab units; colors
    outside all bins share a small probability (`quantize.log_density`). Bits
    per dimension can be compared with mixtures at the same resolution.

    `sample`, with the option `sampling`, one of SAMPLINGS. With 'independent',
    each pixel is drawn independently: these are samples of the density above,
    and look like confetti. With 'shared', all pixels of a photograph choose
    their bin with the same draw of Gumbel noise: every pixel keeps its exact
    marginal distribution, but pixels with similar distributions get the same
    color. `log_prob` is not the density of these samples.

    `predict`, with the options `readout`, one of READOUTS, and `temperature`,
    the T of the annealed mean, above 0.

    `propose`: one proposal, that of `predict`.

  Metrics: `loss` is the mean over pixels of the rebalanced cross-entropy, in
  weighted nats; the weights have mean 1 under the prior. `loss_unweighted` is
  the cross-entropy in nats, equal to `loss` without rebalancing. `accuracy`,
  on held-out photographs only, is the share of pixels whose most probable bin
  is the nearest to the true color.

  Args:
    bins: color bins, see `rebalancing.weighted_bins`.
    prior: see `rebalancing.weighted_bins`.
    rebalance: see `rebalancing.weighted_bins`.
    network: 'published', or a key of `models.trunk.TRUNKS`.
    trunk_settings: further settings of the trunk, see its `build`.
    filters: channels of the blocks or scales, see `colorjax.models.classifier`.
    num_neighbors: number of nearest bins that a soft target is spread over.
    sigma: standard deviation of the soft target, ab units.
    dtype: compute type of the network, 'float32' or 'bfloat16'.

  Returns:
    A Colorizer.

  Raises:
    UserError: a setting has a value that does not exist, or settings do not
      match.
  """
  centers, class_weights = rebalancing.weighted_bins(bins, prior, rebalance)
  if not 1 <= num_neighbors <= len(centers):
    raise UserError(f'num_neighbors={num_neighbors}: must be 1 to '
                    f'{len(centers)}, the number of bins')
  net, stride, divisor = _network(
      network, trunk_settings=trunk_settings, num_bins=len(centers),
      filters=tuple(filters), dtype=jnp.dtype(dtype))

  def init(key: jax.Array, image_shape: tuple[int, int]) -> Variables:
    check_sides(image_shape, divisor)
    return init_variables(net, key, jnp.zeros((1, *image_shape, 1)),
                          train=False)

  def apply(variables: Variables, inputs: Inputs) -> jax.Array:
    lightness = inputs['lightness']
    check_sides(lightness.shape[1:3], divisor)
    logits = net.apply(
        {'params': variables['params'], **variables['model_state']},
        color.normalize_lightness(lightness), train=False)
    assert isinstance(logits, jax.Array)
    return logits

  def loss(params, model_state, batch: Batch, keys: jax.Array, *,
           step: jax.Array | None, train: bool):
    del keys, step  # Nothing is drawn.
    lightness, ab, _ = examples.of_batch(batch)
    logits, new_state = net.apply(
        {'params': params, **model_state},
        color.normalize_lightness(lightness), train=train,
        mutable=list(model_state))
    target = quantize.soft_encode(
        resample.mean_pool(ab, stride), centers,
        num_neighbors=num_neighbors, sigma=sigma)
    metrics = _losses(logits, target, class_weights)
    if not train:
      correct = logits.argmax(-1) == target.indices[..., 0]
      metrics['accuracy'] = correct.mean((1, 2), dtype=jnp.float32)
    return masked_mean(metrics, batch['padding_mask'],
                       new_state if train else model_state)

  def predict(variables: Variables, inputs: Inputs, *,
              readout: str = 'annealed_mean',
              temperature: float = quantize.TEMPERATURE) -> jax.Array:
    ab = quantize.annealed_mean(
        apply(variables, inputs), centers,
        temperature=_annealing_temperature(readout, temperature))
    return resample.enlarge(ab, inputs['lightness'])

  def sample(variables: Variables, inputs: Inputs, keys: jax.Array, n: int, *,
             sampling: str = 'independent') -> jax.Array:
    check_choice('sampling', sampling, SAMPLINGS)
    logits = apply(variables, inputs).astype(jnp.float32)
    noise_shape = list(logits.shape[1:])
    if sampling == 'shared':
      noise_shape[:2] = 1, 1

    def draw_one(keys):
      noise = jax.vmap(lambda key: jax.random.gumbel(key, noise_shape))(keys)
      ab = jnp.asarray(centers)[(logits + noise).argmax(-1)]
      return resample.enlarge(ab, inputs['lightness'])

    # One sample at a time: n copies of the logits may not fit into memory.
    return jax.lax.map(draw_one, key_lib.of_answers(keys, n))

  def draw(variables: Variables, inputs: Inputs, keys: jax.Array, n: int
           ) -> jax.Array:
    logits = apply(variables, inputs)
    return jax.lax.map(
        lambda keys: jax.vmap(quantize.draw, (0, 0, None))(
            keys, logits, centers), key_lib.of_answers(keys, n))

  def log_prob(variables: Variables, inputs: Inputs, ab: jax.Array,
               keys: jax.Array) -> jax.Array:
    del keys  # The density is exact.
    return quantize.log_density(
        apply(variables, inputs), resample.mean_pool(ab, stride), centers
    ).sum((1, 2))

  # One proposal, but random samples.
  colorizer = deterministic(
      init=init, loss=loss, predict=predict, log_prob=log_prob,
      event_shape=lambda shape: (shape[0] // stride, shape[1] // stride),
      backbones=encoders.pretrained(net.trunk)
      if isinstance(net, classifier.TrunkClassifier) else {})
  return dataclasses.replace(colorizer, sample=sample, draw=draw)


def _network(name: str, *, num_bins: int, filters: Sequence[int], dtype: Any,
             trunk_settings: Mapping[str, Any] | None = None
             ) -> tuple[nn.Module, int, int]:
  """Builds the network.

  Returns:
    The network, the stride of its output, and the divisor of its input's sides.
  """
  check_choice('network', name, ('published', *trunk.TRUNKS))
  if name != 'published':
    body = trunk.build(name, filters, dtype, trunk_settings)
    return (classifier.TrunkClassifier(num_bins, body, dtype), body.stride,
            body.divisor)
  if len(filters) != 4:
    raise UserError(f'filters={list(filters)}: the published network needs 4 '
                    'numbers')
  net = classifier.PublishedClassifier(num_bins, filters, dtype=dtype)
  return net, net.STRIDE, net.DIVISOR


def _annealing_temperature(readout: str, temperature: float) -> float:
  """The temperature of a readout: 1 gives the mean, 0 the mode."""
  check_choice('readout', readout, READOUTS)
  if temperature <= 0:
    raise UserError(f'temperature={temperature}: must be above 0; use '
                    'readout=mode for the limit of 0')
  return {'annealed_mean': temperature, 'mean': 1.0, 'mode': 0.0}[readout]


def _losses(logits: jax.Array, target: quantize.SoftCode,
            class_weights: jax.Array | None) -> dict[str, jax.Array]:
  """Losses averaged over the pixels of each photograph, [B] each."""
  unweighted = classification.cross_entropy(logits, *target)
  loss = unweighted if class_weights is None else (
      classification.rebalanced_cross_entropy(logits, *target, class_weights))
  return {'loss': loss.mean((1, 2)), 'loss_unweighted': unweighted.mean((1, 2))}
