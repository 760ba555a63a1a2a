"""Runs metrics over a set of photographs, on all devices.

Statistics are kept for each photograph, never summed over a batch. Results
therefore do not depend on the batch size, padding is easy to leave out, an
interrupted evaluation can resume, and intervals can be found by resampling.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from colorjax import color, hosts, parallel
from colorjax.colorizer import Batch, Variables
from colorjax.errors import UserError
from colorjax.evaluation import catalogue
from colorjax.evaluation.answers import AnswerFn

_PHOTOS_AT_A_TIME = 2
_BATCH = 'batch number'

Measure = Callable[[Batch], Mapping[str, jax.Array]]
"""`batch -> {name: [B, ...]}`: statistics of each photograph."""


def compiled(answer: AnswerFn, variables: Variables,
             networks: Mapping[str, Any] | None = None, *,
             few_at_a_time: bool = False) -> Measure:
  """Compiles all applicable metrics of a batch, on all local devices.

  Args:
    answer: what to evaluate, see `evaluation.answers`.
    variables: first argument of `answer`.
    networks: variables of the networks that metrics use, by name. Metrics
      without their network are left out.
    few_at_a_time: on a CPU, process two photographs at a time within a batch.
      Intermediate results then stay in the cache, which is faster if no
      network is used.

  Returns:
    A function from host batches to the statistics of `catalogue.measure`. It
    raises UserError if the batch cannot be divided among the devices.
  """
  (measure,) = compiled_each(answer, [variables], networks,
                             few_at_a_time=few_at_a_time)
  return measure


def compiled_each(answer: AnswerFn, models: Sequence[Variables],
                  networks: Mapping[str, Any] | None = None, *,
                  few_at_a_time: bool = False) -> list[Measure]:
  """Compiles all applicable metrics once for several models of one method.

  Args:
    answer: as in `compiled`.
    models: first argument of `answer` for each model.
    networks: as in `compiled`.
    few_at_a_time: as in `compiled`.

  Returns:
    For each model, what `compiled` returns for it.
  """
  def measure(state, batch):
    return catalogue.measure(answer(state[0], batch, state[1]))

  def measure_few(state, batch):
    def one(row):
      rows = measure(state, {name: x[None] for name, x in row.items()})
      return jax.tree.map(lambda x: x[0], rows)

    return jax.lax.map(one, batch, batch_size=_PHOTOS_AT_A_TIME)

  few = few_at_a_time and jax.default_backend() == 'cpu'
  mapped = parallel.pmap_photos(measure_few if few else measure)

  def of_model(variables: Variables) -> Measure:
    both = parallel.replicate((variables, dict(networks or {})))
    return lambda batch: mapped(both, batch)

  return [of_model(variables) for variables in models]


def collect(measure: Measure, batches: Iterable[Batch], *,
            shared: bool = False) -> dict[str, np.ndarray]:
  """Measures all photographs and leaves out padding.

  Args:
    measure: `batch -> {name: [B, ...]}`.
    batches: host batches with 'padding_mask'.
    shared: whether each process has a share of every batch; then all processes
      must call this function.

  Returns:
    {name: [N, ...]} in the order of the photographs, with those of all
    processes if they share batches; empty without batches.
  """
  parts: list[dict[str, np.ndarray]] = []
  for batch in batches:
    keep = np.asarray(batch['padding_mask']) > 0
    measured = jax.device_get(measure(batch))
    parts.append({name: value[keep] for name, value in measured.items()} | {
        _BATCH: np.full(keep.sum(), len(parts))})
  if not parts:
    return {}
  rows = {name: np.concatenate([part[name] for part in parts])
          for name in parts[0]}
  if shared:
    rows = hosts.gather_rows(rows)
  # Gathered rows are sorted by process. Each batch is divided among them.
  order = np.argsort(rows.pop(_BATCH), kind='stable')
  return {name: value[order] for name, value in rows.items()}


def mean_of(statistic: Callable[[jax.Array], jax.Array],
            batches: Iterable[Batch]) -> np.ndarray:
  """Mean of a color statistic over photographs.

  Args:
    statistic: function from ab [B, H, W, 2], Lab units, to `[B, ...]`.
    batches: host batches with 'image' and 'padding_mask'; padding is left out.

  Returns:
    The mean, float32 `[...]`.

  Raises:
    UserError: there is no photograph.
  """
  @jax.jit
  def measure(image, mask):
    values = statistic(color.split_lightness(image)[1])
    return jnp.tensordot(mask, values, 1), mask.sum()

  parts = [jax.device_get(measure(
      jnp.asarray(batch['image']),
      jnp.asarray(batch['padding_mask'], jnp.float32)))
           for batch in batches]
  count = sum(number for _, number in parts)
  if not count:
    raise UserError('the training data contain no readable photograph; '
                    'choose other training data')
  return np.asarray(sum(total for total, _ in parts) / count)


def mean_color(batches: Iterable[Batch]) -> np.ndarray:
  """Mean ab over all pixels of photographs, Lab units, float32 [2].

  Args:
    batches: host batches with 'image' and 'padding_mask'; padding is left out.

  Raises:
    UserError: there is no photograph.
  """
  return mean_of(lambda ab: ab.mean((1, 2)), batches)
