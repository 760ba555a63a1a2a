"""The interface of all colorization methods.

A method is a record of pure functions of JAX arrays. Training, evaluation,
reports and `colorize` use only this record, so each of them works with every
method. A new method is one file in `colorjax/methods/` whose
`build(**settings)` returns a `Colorizer`.

All methods use the same shapes and units:

  inputs      the inputs of a prediction, a mapping:
                lightness   float32 [B, H, W, 1], L in [0, 100]; required
                region      float32 [B, H, W, 1], 1 where color is wanted, 0
                            where the picture stays grey
                hint_ab     float32 [B, H, W, 2], Lab units; colors given by
                            the user
                hint_mask   float32 [B, H, W, 1], 1 where hint_ab is given
                reference   uint8 sRGB [B, h, w, 3], a photograph whose colors
                            are transferred
                embedding   float32 [B, E], the result of `Colorizer.embed`
  ab          float32 [B, H, W, 2], Lab units; [n, B, H, W, 2] for n colorings
  batch       a mapping:
                image         uint8 sRGB [B, H, W, 3]
                padding_mask  float32 [B], 1 for a photograph, 0 for padding
                index         int32 [B], the photograph's index in its data
                              set; -1 for padding
              and, where needed, `region`, `embedding` and `lightness` as above
              (a loss reads the lightness by `methods.examples.of_batch`)
  variables   {'params': ..., 'model_state': ...}, pytrees; `params` and
              `model_state` are dicts
  keys        typed JAX random keys [B], one for each photograph, so that the
              samples of a photograph do not depend on its batch

Settings that are chosen at prediction time (temperature, number of sampler
steps, ...) are *options*: keyword-only parameters, with defaults, of the
prediction functions `predict`, `sample`, `propose`, `log_prob`,
`log_prob_and_error` and `draw`. `Colorizer.ask` sets them.
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
"""The collection of `model_state` for pretrained networks that are not trained.

Training steps do not change it, average it over devices or check it. A run
writes it to disk once and not in each checkpoint.
"""

PRETRAINED_ENCODER = 'pretrained_encoder'
"""Key of the variables of a pretrained encoder, in `params` and in FROZEN.

The encoder may have its own learning rate.
"""


class Aux(flax.struct.PyTreeNode):
  """The auxiliary outputs of a loss.

  Attributes:
    model_state: the new non-trainable state of the network (batch statistics),
      {} if it has none.
    metrics: metrics of this batch by name, each a pair of scalars (sum over
      photographs, number of photographs), so that they can be added over
      devices and incomplete batches. `loss`, the objective, is always included.
  """
  model_state: Any
  metrics: dict[str, tuple[jax.Array, jax.Array]]


Inputs = Mapping[str, jax.Array]
"""The inputs of a prediction; see the module's docstring."""

INPUTS = frozenset({
    'lightness', 'region', 'hint_ab', 'hint_mask', 'reference', 'embedding'})
"""The names of all inputs."""

LossFn = Callable[..., tuple[jax.Array, Aux]]
"""`Colorizer.loss`: (params, model_state, batch, keys, *, step, train)."""

DensityKind = Literal['exact', 'lower_bound', 'estimate']
"""What `Colorizer.log_prob` returns."""

_PREDICTION_FIELDS = ('predict', 'sample', 'propose', 'log_prob',
                      'log_prob_and_error', 'draw')


@dataclasses.dataclass(frozen=True)
class Pretrained:
  """How to get the weights of a pretrained network inside a method.

  Attributes:
    load: `(variables, path) -> variables`, replaces the network's weights by
      those of a file. Raises UserError if the file is for another network.
    download: `() -> path`, downloads the public file for `load`, once. Raises
      UserError if this fails.
  """
  load: Callable[[Variables, pathlib.Path], Variables]
  download: Callable[[], pathlib.Path]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Colorizer:
  """A colorization method as a record of pure functions.

  `deterministic` makes the record of a method with a single coloring, `sampler`
  that of a method that only draws samples. `fallbacks.with_fallbacks` adds
  regions and hints to any method.

  Attributes:
    init: `(key, image_shape) -> variables`, with image_shape = (H, W).
    loss: `(params, model_state, batch, keys, *, step, train) -> (scalar, Aux)`.
      The scalar is the sum over the photographs whose padding mask is 1,
      divided by their number, or by 1 if a device holds only padding. `step` is
      the number of updates so far, an int32 scalar. With `train=False`, `step`
      is None and the loss of a photograph does not depend on the batch: no
      dropout, stored batch statistics, and keys that belong to the photograph.
    predict: `(variables, inputs) -> ab`, the best single coloring.
    sample: `(variables, inputs, keys, n) -> ab [n, ...]`, random colorings. A
      larger n only adds samples (`keys.of_answers`). A deterministic method
      returns n copies.
    propose: `(variables, inputs, k) -> (ab [k, ...], probability [k, B])`, k
      different colorings, most probable first. The probabilities sum to at most
      1; they are None if the method has none.
    log_prob: `(variables, inputs, ab, keys) -> nats [B]`, the log density of
      the ab field in Lab units; None if the method has no density. The
      docstring of the method states the resolution.
    log_prob_kind: whether `log_prob` is the log density itself ('exact'), a
      lower bound ('lower_bound') or an unbiased estimate ('estimate'). Only the
      last two may use the keys. A function `(H, W) -> kind` if it depends on
      the resolution; `density_kind` reads both forms.
    log_prob_and_error: only for estimates: `log_prob`, and the standard error
      of its nats that comes from the keys, `(...) -> (nats [B], nats [B])`.
    event_shape: `(H, W) -> (h, w)`, the resolution of the ab field in
      `log_prob`. Bits per dimension are per h * w * 2 values. Fields of
      photographs are reduced to it by averaging over blocks.
    draw: `(variables, inputs, keys, n) -> ab [n, B, h, w, 2]`, independent
      exact samples from the density of `log_prob` at its resolution, for
      calibration metrics. None if `sample` does this, or if there is no
      density. (`sample` has the resolution of the photograph, and for some
      methods another distribution.)
    max_proposals: number of different colorings that `propose` can return: 1
      for a deterministic method, K for a mixture, None if unlimited.
    answers_are_samples: whether `predict` and `propose` return samples with
      keys that are equal for all photographs. An evaluation then reuses its
      samples instead of drawing again.
    accepts: names of the inputs, beside lightness, that the prediction
      functions use.
    players: only for adversarial methods. It maps an entry of `params` to the
      loss that trains this entry while the others are fixed. A step updates the
      entries in this order. Each update uses the parameters that the previous
      one returned, and has its own optimizer state. All names of metrics must
      differ, and one must be `loss`. `Colorizer.loss` is then only used with
      train=False, as the objective on held-out photographs.
    embed: `(variables, lightness) -> [B, E]`, an expensive part of the network
      that needs to be computed only once per photograph. `loss` uses
      batch['embedding'] if present, and computes it otherwise.
    backbones: the pretrained networks inside, by their names in
      `colorjax.backbones`.

  Raises:
    ValueError: `accepts` has an unknown name.
  """
  init: Callable[..., Variables]
  loss: LossFn
  predict: Callable[..., jax.Array]
  sample: Callable[..., jax.Array]
  propose: Callable[..., tuple[jax.Array, jax.Array | None]]
  log_prob: Callable[..., jax.Array] | None = None
  log_prob_kind: DensityKind | Callable[[tuple[int, int]], DensityKind] = (
      'exact')
  log_prob_and_error: Callable[..., tuple[jax.Array, jax.Array]] | None = None
  event_shape: Callable[[tuple[int, int]], tuple[int, int]] = lambda s: s
  draw: Callable[..., jax.Array] | None = None
  max_proposals: int | None = None
  answers_are_samples: bool = False
  accepts: frozenset[str] = frozenset()
  players: Mapping[str, LossFn] = dataclasses.field(default_factory=dict)
  embed: Callable[[Variables, jax.Array], jax.Array] | None = None
  backbones: Mapping[str, Pretrained] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    """Checks the names of the inputs."""
    if unknown := self.accepts - INPUTS:
      raise ValueError(f'accepts: there is no input {min(unknown)!r}; use some '
                       f'of {", ".join(sorted(INPUTS))}')

  def num_proposals(self, wanted: int) -> int:
    """Limits a number of proposals to `max_proposals`."""
    return min(wanted, self.max_proposals or wanted)

  def density_kind(self, image_shape: tuple[int, int]) -> DensityKind:
    """The kind of `log_prob` for photographs of this size, (H, W)."""
    kind = self.log_prob_kind
    return kind(image_shape) if callable(kind) else kind

  @property
  def is_deterministic(self) -> bool:
    """Whether the method has a single coloring and no density."""
    return self.max_proposals == 1 and self.log_prob is None

  @property
  def options(self) -> dict[str, Any]:
    """The options of the prediction functions by name, with current values."""
    return {name: parameter.default
            for function in self._prediction_functions().values()
            for name, parameter in _options(function).items()}

  def ask(self, **options: Any) -> 'Colorizer':
    """Returns the same method with other values of options.

    Args:
      **options: new values by name; `options` lists the names.

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
    for field, function in self._prediction_functions().items():
      mine = {name: options[name] for name in _options(function)
              if name in options}
      if mine:
        bound[field] = functools.partial(function, **mine)
    return dataclasses.replace(self, **bound)

  def _prediction_functions(self) -> dict[str, Callable[..., Any]]:
    return {name: function for name in _PREDICTION_FIELDS
            if (function := getattr(self, name)) is not None}


def _options(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
  """The keyword-only parameters of a function."""
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
  """Makes a method with a single coloring; samples and proposals are copies.

  Args:
    init: as in Colorizer.
    loss: as in Colorizer.
    predict: as in Colorizer.
    **fields: further fields of Colorizer.

  Returns:
    The method.
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
    predict: Callable[..., jax.Array] | None = None,
    **fields: Any,
) -> Colorizer:
  """Makes a method that can only draw samples, without probabilities.

  Its proposals are samples with `constant_keys`.

  Args:
    init: as in Colorizer.
    loss: as in Colorizer.
    sample: as in Colorizer.
    predict: as in Colorizer; if not given, the first proposal.
    **fields: further fields of Colorizer.

  Returns:
    The method.
  """
  @passes_options(sample)
  def first(variables, inputs, **options):
    return sample(variables, inputs, constant_keys(inputs), 1, **options)[0]

  @passes_options(sample)
  def propose(variables, inputs, k, **options):
    return sample(variables, inputs, constant_keys(inputs), k, **options), None

  return Colorizer(**{
      'init': init, 'loss': loss, 'predict': predict or first,
      'sample': sample, 'propose': propose,
      'answers_are_samples': predict is None, **fields})


def constant_keys(inputs: Inputs) -> jax.Array:
  """Returns the keys [B] of answers that are not random: equal ones."""
  return jnp.broadcast_to(jax.random.key(0), inputs['lightness'].shape[:1])


def passes_options(*functions: Callable[..., Any]
                   ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
  """Decorator that gives a caller of functions their options.

  Args:
    *functions: the functions whose options the decorated function takes, with
      the defaults of the first that has an option. The last parameter of the
      decorated function must be `**options`.

  Returns:
    The decorator.
  """
  def decorate(caller):
    own = list(inspect.signature(caller).parameters.values())
    options = {name: parameter for function in reversed(functions)
               for name, parameter in _options(function).items()}
    signature = inspect.Signature(own[:-1] + list(options.values()))
    setattr(caller, '__signature__', signature)  # noqa: B010
    return caller

  return decorate


def options_for(function: Callable[..., Any], options: Mapping[str, Any]
                ) -> dict[str, Any]:
  """Selects those options, values by name, that a prediction function has."""
  return {name: options[name] for name in _options(function) if name in options}


def init_variables(
    net: nn.Module, key: jax.Array, *inputs: Any, **kwargs: Any) -> Variables:
  """Initializes a Flax network as {'params': ..., 'model_state': ...}.

  Args:
    net: the network.
    key: random key.
    *inputs: arguments of the network.
    **kwargs: keyword arguments of the network.

  Returns:
    The variables; `model_state` has all collections except `params`.
  """
  variables = dict(net.init(key, *inputs, **kwargs))
  return {'params': variables.pop('params'), 'model_state': variables}


def masked_mean(metrics: Mapping[str, jax.Array], padding_mask: jax.Array,
                model_state: Any) -> tuple[jax.Array, Aux]:
  """Averages metrics over the photographs of a batch, as a loss returns them.

  Args:
    metrics: metrics of each photograph by name, [B] each; `loss` is the
      objective.
    padding_mask: [B], 1 for a photograph and 0 for padding.
    model_state: the network's new state.

  Returns:
    The mean objective over photographs (0 if there are none), and Aux with the
    sums of all metrics and the number of photographs.
  """
  # Not a product, since a metric of padding may be infinite, and inf * 0 = NaN.
  is_photo = padding_mask > 0
  count = padding_mask.sum()
  sums = {name: (jnp.where(is_photo, value, 0).sum(), count)
          for name, value in metrics.items()}
  total, count = sums['loss']
  return total / jnp.maximum(count, 1), Aux(
      model_state=model_state, metrics=sums)
