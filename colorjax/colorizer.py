"""The contract that every colorization method keeps.

A method is a record of pure functions over JAX arrays. Training, evaluation,
reports and `colorize` know this record and nothing else, so each of them works
with every method, and a new method is one file in `colorjax/methods/` whose
`build(**settings)` returns a `Colorizer`.

Shapes and units, the same for all methods:

  lightness   float32 [B, H, W, 1], L in [0, 100]
  ab          float32 [B, H, W, 2], Lab units; [n, B, H, W, 2] for n answers
  batch       {'image': uint8 sRGB [B, H, W, 3], 'mask': float32 [B]}; the mask
              is 1 for a photograph and 0 for padding
  variables   {'params': ..., 'model_state': ...}, pytrees
  key         a typed JAX random key
"""

import dataclasses
import importlib
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, Literal

import flax.struct
import jax

from colorjax.errors import UserError

Batch = Mapping[str, Any]  # NumPy on the host, JAX arrays on the device
Variables = Mapping[str, Any]


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
      `log_prob` speaks of; bits per dimension divide by h * w * 2.
  """
  init: Callable[..., Variables]
  loss: LossFn
  predict: Callable[[Variables, jax.Array], jax.Array]
  sample: Callable[[Variables, jax.Array, jax.Array, int], jax.Array]
  propose: Callable[[Variables, jax.Array, int], tuple[jax.Array, jax.Array]]
  log_prob: Callable[[Variables, jax.Array, jax.Array], jax.Array] | None = None
  event_shape: Callable[[tuple[int, int]], tuple[int, int]] = lambda s: s


@dataclasses.dataclass(frozen=True)
class Spec:
  """How to build a Colorizer again: a module and its keyword arguments.

  Attributes:
    method: import path of a module whose `build(**settings)` returns a
      Colorizer, for example `colorjax.methods.mbm`.
    settings: keyword arguments of `build`; JSON values only.
    image_size: side of the square, in pixels, that the network is trained on
      and that a photograph is brought to before it is coloured.
    checkpoint: the checkpoint that stands for the run, in its figures and when
      photographs are coloured: 'best' by validation loss, or 'latest'.
  """
  method: str
  settings: dict[str, Any]
  image_size: int
  checkpoint: Literal['best', 'latest'] = 'latest'

  def build(self) -> Colorizer:
    """The method's record of functions; UserError where there is none."""
    try:
      module = importlib.import_module(self.method)
    except ModuleNotFoundError as error:
      raise UserError(
          f'no method {self.method!r}: {error}; it is the import path of a '
          'module with a build function') from error
    return module.build(**self.settings)

  def save(self, path: pathlib.Path) -> None:
    """Writes the record as JSON."""
    path.write_text(json.dumps(dataclasses.asdict(self), indent=2) + '\n')

  @classmethod
  def load(cls, path: pathlib.Path) -> 'Spec':
    """Reads what `save` wrote; UserError names the file if it is damaged."""
    try:
      return cls(**json.loads(path.read_text()))
    except (TypeError, ValueError) as error:
      raise UserError(f'{path} is no colorizer record: {error}') from error
