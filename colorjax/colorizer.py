"""The contract that every colorization method keeps.

A method is a record of pure functions over JAX arrays. Training, evaluation,
reports and `colorize` know this record and nothing else, so each of them works
with every method, and a new method is one file in `colorjax/methods/` whose
`build(**settings)` returns a `Colorizer`.

Shapes and units, the same for all methods:

  inputs      what a method is asked about, a mapping:
                lightness   float32 [B, H, W, 1], L in [0, 100]; always there
                region      float32 [B, H, W, 1], 1 where color is wanted and 0
                            where the picture stays grey
                hint_ab     float32 [B, H, W, 2], Lab units; colors that a
                            person gives
                hint_mask   float32 [B, H, W, 1], 1 where hint_ab is given
                reference   uint8 sRGB [B, h, w, 3], whose colors are wanted
                embedding   float32 [B, E], what `Colorizer.embed` returns
  ab          float32 [B, H, W, 2], Lab units; [n, B, H, W, 2] for n answers
  batch       a mapping:
                image         uint8 sRGB [B, H, W, 3]
                padding_mask  float32 [B], 1 for a photograph, 0 for padding
                index         int32 [B], the photograph's number in its data
                              set; -1 for padding
              and `region` and `embedding`, as above, where the method asks for
              them
  variables   {'params': ..., 'model_state': ...}, pytrees; `params` and
              `model_state` are dicts
  keys        typed JAX random keys [B], one for each photograph: what is drawn
              for a photograph does not depend on the batch that it comes in

Asking is not training. What is chosen when a method is asked (temperature,
number of sampler steps, ...) is an *option*: a keyword-only parameter with a
default of the functions that answer. `Colorizer.ask` sets it.
"""

import dataclasses
import functools
import inspect
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, Literal

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from colorjax.errors import UserError

Batch = Mapping[str, Any]  # NumPy on the host, JAX arrays on the device
Variables = Mapping[str, Any]

FROZEN = 'frozen'
"""The collection of `model_state` that no step changes: pretrained networks.

It takes no part in gradients, averages over devices and checks of a step, and
a run writes it to disk once, not into each checkpoint.
"""


PRETRAINED_ENCODER = 'pretrained_encoder'
"""The entry below `params`, where it is trained, and below FROZEN that holds a
pretrained encoder: it may have a learning rate of its own.
"""


class Aux(flax.struct.PyTreeNode):
  """What a loss returns beside its scalar.

  Attributes:
    model_state: the network's new non-trained state (batch statistics), {} if
      it has none.
    metrics: values of this batch by name, each a pair (sum over photographs,
      number of photographs), both scalars: sums add up exactly over devices
      and ragged batches. `loss`, the objective itself, is always among them.
  """
  model_state: Any
  metrics: dict[str, tuple[jax.Array, jax.Array]]


Inputs = Mapping[str, jax.Array]
"""What a method is asked about; see above."""

INPUTS = frozenset({
    'lightness', 'region', 'hint_ab', 'hint_mask', 'reference', 'embedding'})
"""The names that inputs may have."""

LossFn = Callable[..., tuple[jax.Array, Aux]]
"""`Colorizer.loss`: (params, model_state, batch, keys, *, step, train)."""

_ANSWERING = ('predict', 'sample', 'propose', 'log_prob', 'draw')


@dataclasses.dataclass(frozen=True)
class Pretrained:
  """Where the weights of a pretrained network inside a method come from.

  Attributes:
    load: `(variables, path) -> variables` with the weights of a file in the
      network's place; UserError for a file of another network.
    download: `() -> path` of the public file for `load`, fetched once;
      UserError if it cannot be had.
  """
  load: Callable[[Variables, pathlib.Path], Variables]
  download: Callable[[], pathlib.Path]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Colorizer:
  """A colorization method as pure functions.

  The functions that answer (`predict`, `sample`, `propose`, `log_prob`, `draw`)
  may have options, see the head of this file.

  `deterministic` makes the record of a method with one answer, `sampler` that
  of a method that only draws samples. `fallbacks.with_fallbacks` makes every
  method accept a region and hints.

  Attributes:
    init: `(key, image_shape) -> variables`, with image_shape = (H, W).
    loss: `(params, model_state, batch, keys, *, step, train) -> (scalar, Aux)`.
      The scalar is the sum over the photographs whose mask is 1, divided by
      their number or by 1: a device may hold nothing but padding. `step` is
      the number of updates made so far, an int32 scalar. With `train=False`
      it is None, and the loss is a function of the photograph alone: no
      dropout, stored batch statistics, and keys that belong to the photograph.
    predict: `(variables, inputs) -> ab`, the method's best single answer.
    sample: `(variables, inputs, keys, n) -> ab [n, ...]`, random answers; a
      deterministic method returns n copies. The first answers of many are
      those of few (`keys.of_answers`).
    propose: `(variables, inputs, k) -> (ab [k, ...], probability [k, B])`, the
      k answers worth showing, most probable first. Probabilities sum to at
      most 1. The second is None where answers have no probability.
    log_prob: `(variables, inputs, ab, keys) -> nats [B]`, the log density of
      the ab field in Lab units, or None where the method has no density. The
      method's docstring states the resolution at which it is defined.
    log_prob_kind: what `log_prob` gives: the density itself ('exact'), a lower
      bound of it ('lower_bound'), or an unbiased estimate ('estimate'). Only
      the last two may draw from the keys.
    event_shape: `(H, W) -> (h, w)`: the resolution of the ab field that
      `log_prob` speaks of; bits per dimension divide by h * w * 2. The
      photograph's field is brought there by averages over blocks.
    draw: `(variables, inputs, keys, n) -> ab [n, B, h, w, 2]`, independent
      draws from the density of `log_prob`, exactly and at its resolution:
      calibration is measured with them. None where `sample` is this already,
      or where there is no density. (`sample` is for the eye: brought to the
      photograph's resolution, and where a method says so not from that
      density.)
    max_proposals: how many different answers `propose` has: 1 for a
      deterministic method, K for a mixture, None for as many as are asked.
    answers_are_samples: `predict` and `propose` are samples too, drawn with
      keys that are the same for all photographs. An evaluation then takes them
      from the samples that it has, and does not draw again.
    accepts: names of the inputs, beside lightness, that the answering
      functions heed.
    players: adversarial methods only. By the name of an entry of `params`,
      the loss that trains this entry while the others are held. A step makes
      the updates in this order, each on the parameters that the one before it
      left, each with an optimizer state of its own. The names of all their
      metrics differ, and one of them is `loss`. `Colorizer.loss` is then
      called with train=False alone: the objective on held-out photographs.
    embed: `(variables, lightness) -> [B, E]`, what is worth computing once a
      photograph and not once a step. `loss` takes batch['embedding'] where it
      is there, and computes it where it is not.
    backbones: the pretrained networks inside, by their names in
      `colorjax.backbones`.
  """
  init: Callable[..., Variables]
  loss: LossFn
  predict: Callable[..., jax.Array]
  sample: Callable[..., jax.Array]
  propose: Callable[..., tuple[jax.Array, jax.Array | None]]
  log_prob: Callable[..., jax.Array] | None = None
  log_prob_kind: Literal['exact', 'lower_bound', 'estimate'] = 'exact'
  event_shape: Callable[[tuple[int, int]], tuple[int, int]] = lambda s: s
  draw: Callable[..., jax.Array] | None = None
  max_proposals: int | None = None
  answers_are_samples: bool = False
  accepts: frozenset[str] = frozenset()
  players: Mapping[str, LossFn] = dataclasses.field(default_factory=dict)
  embed: Callable[[Variables, jax.Array], jax.Array] | None = None
  backbones: Mapping[str, Pretrained] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    """ValueError for an input that does not exist."""
    if unknown := self.accepts - INPUTS:
      raise ValueError(f'accepts: there is no input {min(unknown)!r}')

  def num_proposals(self, wanted: int) -> int:
    """`wanted`, or as many different proposals as there are."""
    return min(wanted, self.max_proposals or wanted)

  @property
  def is_deterministic(self) -> bool:
    """Whether there is one answer to each photograph, and no density."""
    return self.max_proposals == 1 and self.log_prob is None

  @property
  def options(self) -> dict[str, Any]:
    """What can be chosen when asking, by name, with the values in force."""
    return {name: parameter.default for function in self._answering().values()
            for name, parameter in _options(function).items()}

  def ask(self, **options: Any) -> 'Colorizer':
    """The same method with other options.

    Args:
      **options: names and values; see `options` for those there are.

    Raises:
      UserError: the method has no such option.
    """
    known = self.options
    for name in options:
      if name not in known:
        raise UserError(
            f'{name}={options[name]}: this method has no option {name!r}; it '
            f'has {", ".join(sorted(known)) or "none"}')
    bound: dict[str, Any] = {}
    for field, function in self._answering().items():
      mine = {name: options[name] for name in _options(function)
              if name in options}
      if mine:
        bound[field] = functools.partial(function, **mine)
    return dataclasses.replace(self, **bound)

  def _answering(self) -> dict[str, Callable[..., Any]]:
    return {name: function for name in _ANSWERING
            if (function := getattr(self, name)) is not None}


def _options(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
  return {name: parameter
          for name, parameter in inspect.signature(function).parameters.items()
          if parameter.kind is inspect.Parameter.KEYWORD_ONLY}


def deterministic(
    *,
    init: Callable[..., Variables],
    loss: LossFn,
    predict: Callable[..., jax.Array],
    **fields: Any,
) -> Colorizer:
  """A method with one answer: samples are copies of it.

  Args:
    init: as in Colorizer.
    loss: as in Colorizer.
    predict: as in Colorizer.
    **fields: further fields of Colorizer.
  """
  def copies(ab: jax.Array, n: int) -> jax.Array:
    return jnp.broadcast_to(ab, (n, *ab.shape))

  @passes_options(predict)
  def sample(variables, inputs, keys, n, **options):
    del keys
    return copies(predict(variables, inputs, **options), n)

  @passes_options(predict)
  def propose(variables, inputs, k, **options):
    return copies(predict(variables, inputs, **options), k), None

  return Colorizer(**{
      'init': init, 'loss': loss, 'predict': predict, 'sample': sample,
      'propose': propose, 'max_proposals': 1, **fields})


def sampler(
    *,
    init: Callable[..., Variables],
    loss: LossFn,
    sample: Callable[..., jax.Array],
    **fields: Any,
) -> Colorizer:
  """A method whose answers are samples, with no order and no probability.

  Its proposals are samples with keys that never change, and its best single
  answer is the first of them.

  Args:
    init: as in Colorizer.
    loss: as in Colorizer.
    sample: as in Colorizer.
    **fields: further fields of Colorizer.
  """
  def fixed(inputs: Inputs) -> jax.Array:
    return jnp.broadcast_to(jax.random.key(0), len(inputs['lightness']))

  @passes_options(sample)
  def predict(variables, inputs, **options):
    return sample(variables, inputs, fixed(inputs), 1, **options)[0]

  @passes_options(sample)
  def propose(variables, inputs, k, **options):
    return sample(variables, inputs, fixed(inputs), k, **options), None

  return Colorizer(**{
      'init': init, 'loss': loss, 'predict': predict, 'sample': sample,
      'propose': propose, 'answers_are_samples': True, **fields})


def passes_options(function: Callable[..., Any]
                   ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
  """Decorates what calls `function(..., **options)`: it has the same options.

  Args:
    function: whose options the decorated function takes and hands on. The
      decorated function is to end in `**options`.
  """
  def decorate(caller):
    own = list(inspect.signature(caller).parameters.values())
    signature = inspect.Signature(
        own[:-1] + list(_options(function).values()))
    setattr(caller, '__signature__', signature)  # noqa: B010
    return caller

  return decorate


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


def masked_mean(metrics: Mapping[str, jax.Array], padding_mask: jax.Array,
                model_state: Any) -> tuple[jax.Array, Aux]:
  """What a loss returns, from metrics of each photograph.

  Args:
    metrics: [B] each; `loss` is the objective.
    padding_mask: [B], 1 for a photograph and 0 for padding.
    model_state: the network's new state.

  Returns:
    The mean objective over photographs (0 if there is none), and the sums of
    all metrics with the number of photographs.
  """
  # Not a product: a metric of padding may be infinite, and inf * 0 is NaN.
  is_photo = padding_mask > 0
  count = padding_mask.sum()
  sums = {name: (jnp.where(is_photo, value, 0).sum(), count)
          for name, value in metrics.items()}
  total, count = sums['loss']
  return total / jnp.maximum(count, 1), Aux(
      model_state=model_state, metrics=sums)
