"""The contract that every colorization method keeps.

A method is a record of pure functions over JAX arrays. Training, evaluation,
reports and `colorize` know this record and nothing else, so each of them works
with every method, and a new method is one file in `colorjax/methods/` whose
`build(**settings)` returns a `Colorizer`.

Shapes and units, the same for all methods:

  lightness   float32 [B, H, W, 1], L in [0, 100]
  ab          float32 [B, H, W, 2], Lab units; [n, B, H, W, 2] for n answers
  batch       {'image': uint8 sRGB [B, H, W, 3], 'mask': float32 [B]}; the mask
              is 1 for a photograph and 0 for padding. Where a method asks for
              them, 'region': float32 [B, H, W, 1], 1 where color is wanted,
              and 'embedding': float32 [B, E], what `Colorizer.embed` gives
  variables   {'params': ..., 'model_state': ...}, pytrees; `params` and
              `model_state` are dicts
  key         a typed JAX random key
"""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

Batch = Mapping[str, Any]  # NumPy on the host, JAX arrays on the device
Variables = Mapping[str, Any]

FROZEN = 'frozen'
"""The collection of `model_state` that no step changes: pretrained networks.

It takes no part in gradients, averages over devices and checks of a step, and
a run writes it to disk once, not into each checkpoint.
"""


class Aux(flax.struct.PyTreeNode):
  """What a loss returns beside its scalar.

  Attributes:
    model_state: the network's new non-trained state (batch statistics), {} if
      it has none.
    metrics: figures of this batch by name, each a pair (sum over photographs,
      number of photographs), both scalars: sums add up exactly over devices
      and ragged batches. `loss`, the objective itself, is always among them.
  """
  model_state: Any
  metrics: dict[str, tuple[jax.Array, jax.Array]]


LossFn = Callable[..., tuple[jax.Array, Aux]]
"""`Colorizer.loss`: (params, model_state, batch, key, *, train)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Colorizer:
  """A colorization method as pure functions.

  Attributes:
    init: `(key, image_shape) -> variables`, with image_shape = (H, W).
    loss: `(params, model_state, batch, key, *, train) -> (scalar, Aux)`. The
      scalar is the sum over the photographs whose mask is 1, divided by their
      number or by 1: a device may hold nothing but padding. With
      `train=False` it is deterministic: no dropout, stored batch statistics.
    predict: `(variables, lightness) -> ab`, the method's best single answer.
    sample: `(variables, lightness, key, n) -> ab [n, ...]`, different answers;
      a deterministic method returns n copies.
    log_prob: `(variables, lightness, ab) -> nats [B]`, the log density of the
      ab field in Lab units, or None where the method has no density. The
      method's docstring states the resolution at which it is defined.
    propose: `(variables, lightness, k) -> (ab [k, ...], weight [k, B])`, the k
      answers worth showing, most probable first; weights are probabilities and
      sum to at most 1.
    event_shape: `(H, W) -> (h, w)`: the resolution of the ab field that
      `log_prob` speaks of; bits per dimension divide by h * w * 2. The
      photograph's field is brought there by averages over blocks.
    is_bound: whether `log_prob` is a lower bound and not the log density.
    draw: `(variables, lightness, key, n) -> ab [n, B, h, w, 2]`, independent
      draws from the density of `log_prob`, to the letter and at its
      resolution: what calibration is measured with. (`sample` is for the eye:
      brought to the photograph's resolution, and where a method says so not
      from that density.) None where there is no density.
    max_proposals: how many different answers `propose` has: 1 for a
      deterministic method, K for a mixture, None for as many as are asked.
    players: adversarial methods only. By the name of an entry of `params`,
      the loss that trains this entry while the others are held. A step makes
      the updates in this order, each on the parameters that the one before it
      left, each with an optimizer state of its own. The names of all their
      metrics differ, and one of them is `loss`. `Colorizer.loss` is then
      called with train=False alone: the objective on held-out photographs.
    predict_within: `(variables, lightness, region) -> ab`, the answer where
      the region [B, H, W, 1] is 1 and grey where it is 0; None where the
      method knows no regions.
    predict_with_hints: `(variables, lightness, hint_ab [B, H, W, 2], hint_mask
      [B, H, W, 1]) -> ab`, the answer that agrees with the given colors where
      hint_mask is 1; None where the method takes no hints.
    embed: `(variables, lightness) -> [B, E]`, what is worth computing once a
      photograph and not once a step. `loss` takes batch['embedding'] where it
      is there, and computes it where it is not.
    backbone: name of the pretrained network inside, see `colorjax.backbones`.
    load_backbone: `(variables, path) -> variables` with the weights of a file
      in the backbone's place; UserError for a file of another network.
    download_backbone: `() -> path` of the public file for `load_backbone`,
      fetched once; UserError if it cannot be had.
  """
  init: Callable[..., Variables]
  loss: LossFn
  predict: Callable[[Variables, jax.Array], jax.Array]
  sample: Callable[[Variables, jax.Array, jax.Array, int], jax.Array]
  propose: Callable[[Variables, jax.Array, int], tuple[jax.Array, jax.Array]]
  log_prob: Callable[[Variables, jax.Array, jax.Array], jax.Array] | None = None
  event_shape: Callable[[tuple[int, int]], tuple[int, int]] = lambda s: s
  is_bound: bool = False
  draw: Callable[..., jax.Array] | None = None
  max_proposals: int | None = None
  players: Mapping[str, LossFn] = dataclasses.field(default_factory=dict)
  predict_within: Callable[..., jax.Array] | None = None
  predict_with_hints: Callable[..., jax.Array] | None = None
  embed: Callable[[Variables, jax.Array], jax.Array] | None = None
  backbone: str | None = None
  load_backbone: Callable[[Variables, pathlib.Path], Variables] | None = None
  download_backbone: Callable[[], pathlib.Path] | None = None

  def num_proposals(self, wanted: int) -> int:
    """`wanted`, or as many different proposals as there are."""
    return min(wanted, self.max_proposals or wanted)


def deterministic(
    *,
    init: Callable[..., Variables],
    loss: LossFn,
    predict: Callable[[Variables, jax.Array], jax.Array],
    **fields: Any,
) -> Colorizer:
  """A method with one answer: samples are copies of it, its weight is 1.

  Args:
    init: as in Colorizer.
    loss: as in Colorizer.
    predict: as in Colorizer.
    **fields: further fields of Colorizer.
  """
  def copies(ab: jax.Array, n: int) -> jax.Array:
    return jnp.broadcast_to(ab, (n, *ab.shape))

  def sample(variables, lightness, key, n):
    del key
    return copies(predict(variables, lightness), n)

  def propose(variables, lightness, k):
    weight = jnp.zeros((k, len(lightness))).at[0].set(1)
    return copies(predict(variables, lightness), k), weight

  return Colorizer(init=init, loss=loss, predict=predict, sample=sample,
                   propose=propose, max_proposals=1, **fields)


def init_variables(
    net: nn.Module, key: jax.Array, *inputs: Any, **kwargs: Any) -> Variables:
  """What `net.init` gives, as {'params', 'model_state'}.

  Args:
    net: the network.
    key: random key.
    *inputs: arguments of the network.
    **kwargs: keyword arguments of the network.
  """
  variables = dict(net.init(key, *inputs, **kwargs))
  return {'params': variables.pop('params'), 'model_state': variables}


def masked_mean(figures: Mapping[str, jax.Array], mask: jax.Array,
                model_state: Any) -> tuple[jax.Array, Aux]:
  """What a loss returns, from a figure for each photograph.

  Args:
    figures: [B] each; `loss` is the objective.
    mask: [B], 1 for a photograph and 0 for padding.
    model_state: the network's new state.

  Returns:
    The mean objective over photographs (0 if there is none), and the sums of
    all figures with the number of photographs.
  """
  # Not a product: a figure of padding may be infinite, and inf * 0 is NaN.
  metrics = {name: (jnp.where(mask > 0, value, 0).sum(), mask.sum())
             for name, value in figures.items()}
  total, count = metrics['loss']
  return total / jnp.maximum(count, 1), Aux(
      model_state=model_state, metrics=metrics)
