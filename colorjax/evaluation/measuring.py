"""Each photograph measured once, in batches of any size, on all devices.

What is kept is a value (or a row of numbers) for each photograph, never a sum
over a batch: any grouping of photographs gives the same figures, padding is
left out, a second run goes on where the first was stopped, and intervals can
be had by resampling.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from colorjax import color, hosts, parallel
from colorjax.colorizer import Batch, Variables
from colorjax.errors import UserError
from colorjax.evaluation import catalogue
from colorjax.evaluation.answers import AnswerFn

_FEW = 2
_BATCH = 'number of the batch'

Measure = Callable[[Batch], Mapping[str, jax.Array]]
"""`batch -> {name: [B, ...]}`."""


def compiled(answer: AnswerFn, variables: Variables,
             networks: Mapping[str, Any] | None = None, *,
             few_at_a_time: bool = False) -> Measure:
  """All applicable metrics of a batch, compiled, on all local devices.

  Args:
    answer: what is judged.
    variables: its first argument.
    networks: variables of the networks that metrics use, by name; metrics whose
      network is not among them are left out.
    few_at_a_time: on a CPU, two photographs at a time within the batch: what
      is computed of them then stays in its caches, which is faster where no
      network takes part.

  Returns:
    Host batches to the statistics of `catalogue.measure`. UserError for a
    batch that the devices cannot share.
  """
  both = parallel.replicate((variables, dict(networks or {})))

  def measure(state, batch):
    return catalogue.measure(answer(state[0], batch, state[1]))

  def measure_few(state, batch):
    def one(row):
      rows = measure(state, {name: x[None] for name, x in row.items()})
      return jax.tree.map(lambda x: x[0], rows)

    return jax.lax.map(one, batch, batch_size=_FEW)

  few = few_at_a_time and jax.default_backend() == 'cpu'
  mapped = parallel.pmap_photos(measure_few if few else measure)
  return lambda batch: mapped(both, batch)


def collect(measure: Measure, batches: Iterable[Batch], *,
            shared: bool = False) -> dict[str, np.ndarray]:
  """Measures every photograph once; padding is left out.

  Args:
    measure: `batch -> {name: [B, ...]}`.
    batches: host batches with 'mask'.
    shared: each process has a share of every batch; all have to call this.

  Returns:
    {name: [N, ...]} in the order of the photographs, those of all processes if
    they share. Empty if there are none.
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
  # Each process has a share of every batch.
  order = np.argsort(rows.pop(_BATCH), kind='stable')
  return {name: value[order] for name, value in rows.items()}


def mean_of(statistic: Callable[[jax.Array], jax.Array],
            batches: Iterable[Batch]) -> np.ndarray:
  """Mean of something about the colors of some photographs.

  Args:
    statistic: ab [B, H, W, 2], Lab units, to `[B, ...]`.
    batches: host batches; padding is left out.

  Returns:
    float32, `[...]`. UserError if there is no photograph.
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
    raise UserError('the training data hold no readable photograph')
  return np.asarray(sum(total for total, _ in parts) / count)


def mean_color(batches: Iterable[Batch]) -> np.ndarray:
  """Mean ab [2] over all pixels of some photographs, Lab units, float32."""
  return mean_of(lambda ab: ab.mean((1, 2)), batches)
