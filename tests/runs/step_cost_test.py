"""What a training step needs, by XLA's analysis."""

import dataclasses

import jax
import pytest

from colorjax.colorizer import masked_mean, sampler
from colorjax.errors import UserError
from colorjax.methods import mask_gan, mbm
from colorjax.runs import step_cost
from colorjax.runs.options import Optimizing, TrainOptions

CHANNELS = 512
SGD = Optimizing(optimizer='sgd', momentum=0.0, clip_norm=0.0)


def _options(**changes):
  return TrainOptions(**{'workdir': '.', 'image_size': 8, 'optimizing': SGD,
                         'ema_decay': 0, **changes})


def _cost(size, total):
  return step_cost.StepCost(batch_size=size, state=0, batch=0, output=0,
                            temporary=total, parameters=1, flops=1)


def test_the_largest_batch_by_hand():
  costs = [_cost(2, 120), _cost(4, 140)]  # 100 bytes and 10 a photograph
  assert step_cost.line(costs) == pytest.approx((100, 10))
  assert step_cost.largest_batch(costs, 179) == 7
  assert step_cost.largest_batch(costs, 179, multiple=4) == 4
  assert step_cost.largest_batch(costs, 99) == 0
  with pytest.raises(UserError, match='batch_sizes=2,2'):
    step_cost.line([costs[0], costs[0]])


def test_parts_of_the_memory_of_a_game():
  colorizer = mask_gan.build(widths=(4, 8))
  variables = jax.eval_shape(
      lambda key: colorizer.init(key, (8, 8)), jax.random.key(0))
  parameters, others = (
      sum(x.size for x in jax.tree.leaves(variables[name]))
      for name in ('params', 'model_state'))
  options = _options(ema_decay=0.9, optimizing=Optimizing(optimizer='adam'))
  cost, twice = (step_cost.analyze(
      colorizer, dataclasses.replace(options, replicas=replicas), 4,
      has_regions=True, compiles=False) for replicas in (None, 2))
  assert cost.parameters == parameters
  # Parameters, their average and two moments; statistics and their average.
  # Counts of steps are a few numbers more.
  expected = 4 * (4 * parameters + 2 * others)
  assert 0 < cost.state - expected < 60
  assert 0 < twice.state - 2 * expected < 120
  # Pixels, regions, padding mask and index.
  assert cost.batch == 4 * (8 * 8 * (3 + 4) + 4 + 4)
  assert cost.temporary is cost.output is None
  assert 1.8 < twice.flops / cost.flops < 2.2


def _convolution():
  """A method of one 3x3 convolution from 3 to CHANNELS channels."""
  def init(key, shape):
    del shape
    return {'params': jax.random.normal(key, (3, 3, 3, CHANNELS)),
            'model_state': {}}

  def loss(params, model_state, batch, keys, *, step, train):
    del keys, step, train
    x = jax.lax.conv_general_dilated(
        batch['image'].astype(jax.numpy.float32), params, (1, 1), 'VALID',
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
    return masked_mean({'loss': jax.numpy.sin(x).mean((1, 2, 3))},
                       batch['padding_mask'], model_state)

  return sampler(init=init, loss=loss, sample=lambda *_, **__: None)


def test_operations_and_memory_by_hand():
  colorizer, size = _convolution(), 4
  cost = step_cost.analyze(colorizer, _options(), size)
  pixels = size * 6**2
  # Forward pass and gradient of the kernel; the pixels need none.
  products = 2 * 2 * pixels * CHANNELS * 3 * 3 * 3
  assert products < cost.flops < 1.2 * products
  # At least the convolution's result or its gradient, and the kernel's.
  assert cost.temporary > 4 * CHANNELS * (pixels + 3 * 3 * 3)
  halves = step_cost.analyze(
      colorizer, _options(accumulate=2), size, compiles=False)
  assert halves.flops == pytest.approx(cost.flops, rel=0.15)
  assert halves.batch == cost.batch


def test_a_line_through_small_batches_predicts_a_large_one():
  small = [step_cost.analyze(_convolution(), _options(), size)
           for size in (8, 16)]
  fixed, each = step_cost.line(small)
  large = step_cost.analyze(_convolution(), _options(), 64)
  assert large.total == pytest.approx(fixed + 64 * each, rel=0.05)
  assert step_cost.largest_batch(small, large.total) in range(60, 69)


def test_remat_takes_less_memory_for_the_default_network():
  """Two of the four scales of the default, which need nearly all memory."""
  colorizer = mbm.build(filters=(32, 64))
  options = _options(image_size=64)
  plain, remat = (step_cost.analyze(
      colorizer, dataclasses.replace(options, remat=remat), 16)
                  for remat in (False, True))
  assert remat.temporary < 0.92 * plain.temporary
  assert remat.flops < 1.05 * plain.flops
  assert (remat.state, remat.batch) == (plain.state, plain.batch)
