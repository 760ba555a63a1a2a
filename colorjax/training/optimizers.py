"""Optimizers and learning-rate schedules from plain keyword arguments."""

from typing import Any, Literal

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
  """Makes the learning rate as a function of the step, counted from 0.

  Args:
    name: 'constant'; 'cosine', from the peak down to 0 at num_steps
      (Loshchilov & Hutter 2017, without restarts); 'halving', halved every
      `halve_every` steps.
    learning_rate: the peak learning rate.
    num_steps: length of the run, including the warm-up; 'cosine' only.
    warmup_steps: number w of steps of linear warm-up,
      learning_rate * (step + 1) / w, before the named schedule begins.
    halve_every: number of steps between halvings; 'halving' only.

  Returns:
    `step -> learning rate`.

  Raises:
    UserError: the name is unknown, or a number does not fit the schedule.
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
            f'halve_every={halve_every}: schedule=halving needs at least 1 '
            'step')
      after = optax.exponential_decay(
          learning_rate, transition_steps=halve_every, decay_rate=0.5,
          staircase=True)
    case _:
      raise UserError(
          f'schedule={name}: choose constant, cosine or halving')
  if not warmup_steps:
    return after
  # Starts at 1/w and not at 0, because a step with rate 0 would be wasted.
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
  """Makes an optimizer.

  Args:
    name: 'adamw' (Loshchilov & Hutter 2019), 'adam' (Kingma & Ba 2015), or
      'sgd'.
    learning_rate: a number, or a schedule from `make_schedule`.
    clip_norm: largest global norm of the gradient, which is scaled down to
      it; None does not clip.
    weight_decay: decoupled weight decay, 'adamw' only. It applies to kernels,
      not to vectors, biases and scales of normalization layers.
    b1: decay rate of the first moment, 'adamw' and 'adam' only.
    b2: decay rate of the second moment, 'adamw' and 'adam' only.
    eps: added to the root of the second moment, 'adamw' and 'adam' only.
    momentum: 'sgd' only; 0 is plain gradient descent, without a buffer.

  Returns:
    The optimizer as a gradient transformation of optax.

  Raises:
    UserError: the name is unknown.
  """
  match name:
    case 'adamw':
      update = optax.adamw(
          learning_rate, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay,
          mask=_is_decayed)
    case 'adam':
      update = optax.adam(learning_rate, b1=b1, b2=b2, eps=eps)
    case 'sgd':
      update = optax.sgd(learning_rate, momentum=momentum or None)
    case _:
      raise UserError(f'optimizer={name}: choose adamw, adam or sgd')
  if clip_norm is None:
    return update
  return optax.chain(optax.clip_by_global_norm(clip_norm), update)


def _is_decayed(params: Any) -> Any:
  """Marks the parameters that weight decay applies to.

  Biases and the scales of norms are known by their names, because those of
  attention heads and of stacked layers have several axes.
  """
  return jax.tree_util.tree_map_with_path(
      lambda path, p: p.ndim > 1 and getattr(path[-1], 'key', None) not in (
          'bias', 'scale'), params)


def with_encoder_rate(optimizer: optax.GradientTransformation, ratio: float
                      ) -> optax.GradientTransformation:
  """Gives a pretrained encoder its own learning rate.

  The updates of the encoder are multiplied by a constant. The updates of all
  optimizers here are proportional to the learning rate, so this is the same as
  another learning rate with the same schedule.

  Args:
    optimizer: optimizer of all parameters.
    ratio: learning rate of the encoder divided by that of other parameters.

  Returns:
    The optimizer. It has no state in addition to that of `optimizer`.
  """
  def scaled(path: tuple, update: jax.Array) -> jax.Array:
    is_encoder = any(getattr(part, 'key', None) == PRETRAINED_ENCODER
                     for part in path)
    return update * ratio if is_encoder else update

  return optax.chain(optimizer, optax.stateless(
      lambda updates, _: jax.tree_util.tree_map_with_path(scaled, updates)))
