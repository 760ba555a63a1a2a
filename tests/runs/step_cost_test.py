"""What a training step needs, by XLA's analysis."""

import dataclasses

import jax
import pytest

from colorjax.errors import UserError
from colorjax.methods import mask_gan, mbm
from colorjax.runs import step_cost
from colorjax.runs.options import Optimizing, TrainOptions

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
  cost = step_cost.analyze(
      colorizer, _options(ema_decay=0.9), 4, has_regions=True)
  variables = jax.eval_shape(
      lambda key: colorizer.init(key, (8, 8)), jax.random.key(0))
  parameters, others = (
      sum(x.size for x in jax.tree.leaves(variables[name]))
      for name in ('params', 'model_state'))
  assert cost.parameters == parameters
  # Variables and their average; step, failed, and the counts of the schedules.
  assert 0 < cost.state - 2 * 4 * (parameters + others) < 40
  assert cost.batch == 4 * (8 * 8 * (3 + 4) + 4 + 4)
  assert cost.temporary > 4 * parameters  # the gradient
  assert cost.flops > 0


def test_remat_takes_less_memory_for_the_default_network():
  """Two of the four scales of the default, at which nearly all memory is."""
  colorizer = mbm.build(filters=(32, 64))
  options = _options(image_size=256)
  plain, remat = (step_cost.analyze(
      colorizer, dataclasses.replace(options, remat=remat), 32)
                  for remat in (False, True))
  assert remat.temporary < 0.92 * plain.temporary
  assert remat.flops < 1.1 * plain.flops
  assert (remat.state, remat.batch) == (plain.state, plain.batch)
