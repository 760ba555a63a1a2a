"""Colorization as classification (Zhang, Isola and Efros, ECCV 2016).

The ab plane is cut into Q bins (`colorjax.quantize`), the network gives each
pixel of its output a distribution over them, trained by cross-entropy with
soft targets, and the color is the mean of the distribution after annealing:
at T = 1 its mean, which is faded where the network is in doubt, as T goes to 0
its mode, which is vivid and spotted; 0.38 as published.

Rare colors lose against the greyish ones of most photographs unless they are
given more weight. `rebalance` does this with the prior of one's own data.
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
from colorjax.methods import encoders, rebalancing
from colorjax.methods.checks import check_choice, check_sides
from colorjax.models import classifier, trunk

READOUTS = ('annealed_mean', 'mean', 'mode')
"""How the single answer is read from the distributions of the pixels."""

SAMPLINGS = ('independent', 'shared')
"""How the noise of a sample is drawn; see `build`."""


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
  """The classification network as a Colorizer.

  Given the photograph, the model's pixels are independent. Therefore:

    `log_prob` is the sum of the pixels' log densities at the network's output
    resolution (`event_shape`: a quarter of the input's for 'published', half
    for 'unet'), the photograph's ab brought there by averaging. The probability
    of a bin is spread over its square of 10 x 10 ab units, and a color
    outside all bins gets the small share of `quantize.log_density`. In bits
    per dimension it compares with mixtures at the same resolution.

    `sample`, whose option `sampling` is one of SAMPLINGS, draws each pixel by
    itself with 'independent': these are samples of
    the density above, and look like confetti. With 'shared', all pixels of a
    photograph take their bin by the same draw of Gumbel noise: each pixel
    still has its own distribution, to the letter, but neighbors that agree in
    it get the same color. The density of such a whole is not `log_prob`.

    `predict` has the options `readout`, one of READOUTS, and `temperature`, the
    T of the annealed mean, above 0.

    `propose` has one answer, that of `predict`: a whole coloring has no
    probability here that could be told apart from that of all others.

  `loss` is the mean over pixels of the rebalanced cross-entropy, in nats times
  a weight whose mean over the prior is 1; `loss_unweighted`, in nats, stands
  beside it; without rebalancing they are equal. `accuracy`, on held-out
  photographs, is the share of pixels whose most probable bin is the right one.

  Args:
    bins: color bins, see `rebalancing.weighted_bins`.
    prior: see there.
    rebalance: see there.
    network: 'published', or a key of `models.trunk.TRUNKS`.
    trunk_settings: of the trunk alone, see its `build`.
    filters: channels of the blocks or scales, see `colorjax.models.classifier`.
    num_neighbors: bins that a target is spread over.
    sigma: width of that spread, ab units.
    dtype: compute type of the network, 'float32' or 'bfloat16'.

  Returns:
    The record of functions. UserError for settings that do not exist or do not
    fit each other.
  """
  centers, class_weights = rebalancing.weighted_bins(bins, prior, rebalance)
  if not 1 <= num_neighbors <= len(centers):
    raise UserError(f'num_neighbors={num_neighbors}: there are '
                    f'{len(centers)} bins')
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
    lightness, ab = color.split_lightness(batch['image'])
    logits, new_state = net.apply(
        {'params': params, **model_state},
        color.normalize_lightness(lightness), train=train,
        mutable=list(model_state))
    target = quantize.soft_encode(
        resample.mean_pool(ab, stride), centers,
        num_neighbors=num_neighbors, sigma=sigma)
    metrics = _losses(logits, target, class_weights)
    if not train:
      hit = logits.argmax(-1) == target.indices[..., 0]
      metrics['accuracy'] = hit.mean((1, 2), dtype=jnp.float32)
    return masked_mean(metrics, batch['padding_mask'],
                       new_state if train else model_state)

  def predict(variables: Variables, inputs: Inputs, *,
              readout: str = 'annealed_mean',
              temperature: float = quantize.TEMPERATURE) -> jax.Array:
    ab = quantize.annealed_mean(
        apply(variables, inputs), centers,
        temperature=_annealing(readout, temperature))
    return resample.enlarge(ab, inputs['lightness'])

  def sample(variables: Variables, inputs: Inputs, keys: jax.Array, n: int, *,
             sampling: str = 'independent') -> jax.Array:
    check_choice('sampling', sampling, SAMPLINGS)
    logits = apply(variables, inputs).astype(jnp.float32)
    noise_shape = list(logits.shape[1:])
    if sampling == 'shared':
      noise_shape[:2] = 1, 1

    def answer(keys):
      noise = jax.vmap(lambda key: jax.random.gumbel(key, noise_shape))(keys)
      ab = jnp.asarray(centers)[(logits + noise).argmax(-1)]
      return resample.enlarge(ab, inputs['lightness'])

    # One after the other: n copies of the logits may not fit.
    return jax.lax.map(answer, key_lib.of_answers(keys, n))

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

  one_answer = deterministic(
      init=init, loss=loss, predict=predict, log_prob=log_prob,
      event_shape=lambda shape: (shape[0] // stride, shape[1] // stride),
      backbones=encoders.pretrained(net.trunk)
      if isinstance(net, classifier.TrunkClassifier) else {})
  return dataclasses.replace(one_answer, sample=sample, draw=draw)


def _network(name: str, *, num_bins: int, filters: Sequence[int], dtype: Any,
             trunk_settings: Mapping[str, Any] | None
             ) -> tuple[nn.Module, int, int]:
  """The network, how much smaller its output is, and the divisor of sides."""
  check_choice('network', name, ('published', *trunk.TRUNKS))
  if name != 'published':
    body = trunk.build(name, filters, dtype, trunk_settings)
    return (classifier.TrunkClassifier(num_bins, body, dtype), body.stride,
            body.divisor)
  if len(filters) != 4:
    raise UserError(f'filters={list(filters)}: the published network takes 4 '
                    'numbers')
  net = classifier.PublishedClassifier(num_bins, filters, dtype=dtype)
  return net, net.STRIDE, net.DIVISOR


def _annealing(readout: str, temperature: float) -> float:
  """The temperature of the annealed mean; 1 is the mean and 0 the mode."""
  check_choice('readout', readout, READOUTS)
  if temperature <= 0:
    raise UserError(f'temperature={temperature}: must be above 0; '
                    'readout=mode is what it tends to there')
  return {'annealed_mean': temperature, 'mean': 1.0, 'mode': 0.0}[readout]


def _losses(logits: jax.Array, target: quantize.SoftCode,
            class_weights: jax.Array | None) -> dict[str, jax.Array]:
  """Means over the pixels of each photograph, [B] each."""
  unweighted = classification.cross_entropy(logits, *target)
  loss = unweighted if class_weights is None else (
      classification.rebalanced_cross_entropy(logits, *target, class_weights))
  return {'loss': loss.mean((1, 2)), 'loss_unweighted': unweighted.mean((1, 2))}
