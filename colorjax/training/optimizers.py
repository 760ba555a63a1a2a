"""Optimizers and learning-rate schedules from plain keyword arguments."""

from typing import Literal

import jax
import optax

from colorjax.colorizer import PRETRAINED_ENCODER
from colorjax.errors import UserError

ScheduleName = Literal['constant', 'cosine', 'halving']
OptimizerName = Literal['adamw', 'adam', 'sgd']


def make_schedule(
    name: ScheduleName = 'constant',
    *,
    learning_rate: float,
    num_steps: int = 0,
    warmup_steps: int = 0,
    halve_every: int = 0,
) -> optax.Schedule:
  """The learning rate as a function of the step, counted from 0.

  Args:
    name: 'constant'; 'cosine', from the peak down to 0 at num_steps
      (Loshchilov & Hutter 2017, without restarts); 'halving', times 1/2 every
      `halve_every` steps.
    learning_rate: the peak.
    num_steps: length of the run; 'cosine' only.
    warmup_steps: w steps of linear warm-up, learning_rate * (step + 1) / w,
      before the named schedule begins.
    halve_every: steps; 'halving' only.

  Returns:
    `step -> learning rate`.

  Raises:
    UserError: an unknown name, or numbers that the schedule cannot have.
  """
  match name:
    case 'constant':
      after = optax.constant_schedule(learning_rate)
    case 'cosine':
      if num_steps <= warmup_steps:
        raise UserError(
            f'num_steps={num_steps} must exceed '
            f'warmup_steps={warmup_steps} for a cosine schedule')
      after = optax.cosine_decay_schedule(
          learning_rate, num_steps - warmup_steps)
    case 'halving':
      if halve_every < 1:
        raise UserError(
            f'halve_every={halve_every}: a halving schedule needs a '
            'positive number of steps')
      after = optax.exponential_decay(
          learning_rate, transition_steps=halve_every, decay_rate=0.5,
          staircase=True)
    case _:
      raise UserError(
          f'schedule={name}: choose constant, cosine or halving')
  if not warmup_steps:
    return after
  # From 1/w, not from 0: a step with rate 0 would be a step wasted.
  warmup = optax.linear_schedule(
      learning_rate / warmup_steps, learning_rate, max(warmup_steps - 1, 1))
  return optax.join_schedules([warmup, after], [warmup_steps])


def make_optimizer(
    name: OptimizerName = 'adamw',
    *,
    learning_rate: optax.ScalarOrSchedule,
    clip_norm: float | None = None,
    weight_decay: float = 0.0,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    momentum: float = 0.0,
) -> optax.GradientTransformation:
  """A gradient transformation of optax.

  Args:
    name: 'adamw' (Loshchilov & Hutter 2019), 'adam' (Kingma & Ba 2015), or
      'sgd'.
    learning_rate: a number, or what `make_schedule` returns.
    clip_norm: scale the gradient down to this global norm; None: never.
    weight_decay: decoupled decay, 'adamw' only. Kernels decay; vectors (bias,
      scale of a normalization) do not.
    b1: decay of the first moment, the Adams only.
    b2: decay of the second moment, the Adams only.
    eps: added to the root of the second moment, the Adams only.
    momentum: 'sgd' only; 0 is plain gradient descent, without a buffer.

  Raises:
    UserError: an unknown name.
  """
  match name:
    case 'adamw':
      update = optax.adamw(
          learning_rate, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay,
          mask=lambda params: jax.tree.map(lambda p: p.ndim > 1, params))
    case 'adam':
      update = optax.adam(learning_rate, b1=b1, b2=b2, eps=eps)
    case 'sgd':
      update = optax.sgd(learning_rate, momentum=momentum or None)
    case _:
      raise UserError(f'optimizer={name}: choose adamw, adam or sgd')
  if clip_norm is None:
    return update
  return optax.chain(optax.clip_by_global_norm(clip_norm), update)


def with_encoder_rate(optimizer: optax.GradientTransformation, share: float
                      ) -> optax.GradientTransformation:
  """An optimizer whose updates of a pretrained encoder are smaller.

  The updates of all optimizers here are proportional to the learning rate, so
  this is a learning rate of the encoder's own, over the same schedule.

  Args:
    optimizer: of all parameters.
    share: the encoder's learning rate as a multiple of that of the others.

  Returns:
    The optimizer; its state has no numbers besides those of the other's.
  """
  def scaled(path: tuple, update: jax.Array) -> jax.Array:
    is_encoder = any(getattr(part, 'key', None) == PRETRAINED_ENCODER
                     for part in path)
    return update * share if is_encoder else update

  return optax.chain(optimizer, optax.stateless(
      lambda updates, _: jax.tree_util.tree_map_with_path(scaled, updates)))
