"""Compares the mixture likelihood with numpyro and other implementations.

    python -m experiments.benchmarks.likelihood --batch=32 --components=16

Each row is an implementation: the time of the forward pass, the time of the
value with its gradient with respect to all parameters and mixing logits, the
temporary memory of the latter, and its speed relative to numpyro's Bernoulli
mixture. Implementations take turns in one process, so that other load on the
machine affects all of them equally. Times are medians.

Memory is in units of one logits array. Memory traffic is the minimum for a
value with its gradient: parameters are read once in the forward and once in the
backward pass, and gradients are written once.
"""

import dataclasses
import json
import math
import pathlib
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags

from colorjax.errors import UserError
from experiments import common

_BATCH = flags.DEFINE_integer(
    'batch', 32, 'Number of events.', lower_bound=1)
_COMPONENTS = flags.DEFINE_integer(
    'components', 16, 'Number of components of the mixture.', lower_bound=1)
_DIMS = flags.DEFINE_integer(
    'dims', 8192, 'Dimensions of an event: height x width x 2.', lower_bound=1)
_REPEATS = flags.DEFINE_integer(
    'repeats', 20, 'Number of repetitions; times are medians.', lower_bound=1)
_DTYPE = flags.DEFINE_enum(
    'dtype', 'float32', ['float32', 'bfloat16'],
    'Type of targets and parameters.')
_OUTPUT = flags.DEFINE_string(
    'output', None, 'File for the table, .json or .md.')

REFERENCE = 'bernoulli, numpyro'


@dataclasses.dataclass
class Timing:
  """The measurements of an implementation: one row of the table.

  Attributes:
    form: family and implementation.
    nats: mean log-likelihood, equal for implementations of the same family.
    forward_ms: time of the value, in milliseconds.
    gradient_ms: time of the value with its gradient, in milliseconds.
    temporaries: temporary memory of the value with its gradient, in units of
      one logits array; NaN if it is unknown.
    gigabytes_per_s: minimum memory traffic divided by `gradient_ms`.
    speed: `gradient_ms` of numpyro's Bernoulli mixture divided by
      `gradient_ms`; None without numpyro.
  """
  form: str
  nats: float
  forward_ms: float
  gradient_ms: float
  temporaries: float
  gigabytes_per_s: float
  speed: float | None = None


@dataclasses.dataclass
class Form:
  """An implementation, compiled for given arrays.

  Attributes:
    name: family and implementation.
    forward: the compiled value.
    gradient: the compiled value with its gradient.
    args: arguments of both: parameters, mixing logits, targets.
    traffic: minimum memory traffic of `gradient`, in bytes.
    times: times of `forward` and of `gradient`, in seconds.
  """
  name: str
  forward: Any
  gradient: Any
  args: tuple[Any, ...]
  traffic: int
  times: tuple[list[float], list[float]] = dataclasses.field(
      default_factory=lambda: ([], []))


def bernoulli_forms() -> dict[str, Callable[..., Any]]:
  """Other implementations of the Bernoulli mixture.

  Returns:
    Functions `(targets, params, mixing) -> log-likelihood [B]` by name; numpyro
    only if it is installed.
  """
  import jax
  import jax.numpy as jnp

  def mix(component_log_prob, mixing):
    log_priors = jax.nn.log_softmax(mixing.astype(jnp.float32))
    return jax.nn.logsumexp(log_priors + component_log_prob, axis=-1)

  def plain(x, params, mixing):
    (logits,), x = params, x[:, None]
    terms = (x * jax.nn.log_sigmoid(logits)
             + (1 - x) * jax.nn.log_sigmoid(-logits))
    return mix(terms.sum(-1, dtype=jnp.float32), mixing)

  def einsum(x, params, mixing):
    (logits,) = params
    linear = jnp.einsum('bd,bkd->bk', x, logits,
                        preferred_element_type=jnp.float32)
    normalizer = jax.nn.softplus(logits).sum(-1, dtype=jnp.float32)
    return mix(linear - normalizer, mixing)

  forms: dict[str, Callable[..., Any]] = {
      'bernoulli, log-sigmoid': plain, 'bernoulli, einsum': einsum}
  try:
    import numpyro.distributions as dist
  except ModuleNotFoundError:
    print('numpyro is not installed, so there is no relative speed; install it '
          "with pip install -e '.[dev]'")
    return forms

  def numpyro(x, params, mixing):
    (logits,) = params
    components = dist.Independent(
        dist.BernoulliLogits(logits, validate_args=False), 1,
        validate_args=False)
    return dist.MixtureSameFamily(
        dist.CategoricalLogits(mixing, validate_args=False), components,
        validate_args=False).log_prob(x)

  return {REFERENCE: numpyro} | forms


def all_forms() -> dict[str, tuple[int, Callable[..., Any]]]:
  """All implementations: (number of parameters, log-likelihood) by name."""
  from colorjax import losses

  def ours(family):
    return lambda x, params, mixing: losses.mixture_log_prob(
        x, params, mixing, family=family, event_axes=(1,))

  families = {
      'bernoulli': losses.bernoulli(),
      'continuous bernoulli': losses.continuous_bernoulli(),
      'gaussian': losses.gaussian(),
      'discretized logistic': losses.discretized_logistic(),
  }
  named = {f'{name}, colorjax': (family.num_params, ours(family))
           for name, family in families.items()}
  return named | {name: (1, form) for name, form in bernoulli_forms().items()}


def compile_form(name: str, num_params: int, log_prob: Callable[..., Any],
                 batch: int, components: int, dims: int, dtype: str) -> Form:
  """Compiles a log-likelihood for random arrays.

  Args:
    name: name of the implementation.
    num_params: number of parameter arrays, each [batch, components, dims].
    log_prob: `(targets, params, mixing) -> [batch]`.
    batch: number of events.
    components: number of components.
    dims: dimensions of an event.
    dtype: type of targets and parameters.
  """
  import jax

  def loss(params, mixing, targets):
    return log_prob(targets, params, mixing).sum()

  keys = jax.random.split(jax.random.key(0), num_params + 2)
  params = tuple(
      jax.random.normal(key, (batch, components, dims), dtype)
      for key in keys[2:])
  args = (params, jax.random.normal(keys[0], (batch, components)),
          jax.random.uniform(keys[1], (batch, dims), dtype))
  gradient = jax.value_and_grad(loss, argnums=(0, 1))
  return Form(
      name, jax.jit(loss).lower(*args).compile(),
      jax.jit(gradient).lower(*args).compile(), args,
      traffic=3 * sum(p.nbytes for p in params) + 2 * args[-1].nbytes)


def measure_times(forms: list[Form], repeats: int) -> None:
  """Appends `repeats` times to each form; forms take turns."""
  import jax
  for turn in range(repeats + 1):
    for form in forms:
      for program, times in zip(
          (form.forward, form.gradient), form.times, strict=True):
        start = time.perf_counter()
        jax.block_until_ready(program(*form.args))
        if turn:  # the first turn is for warm-up
          times.append(time.perf_counter() - start)


def summarize(form: Form) -> Timing:
  """The row of a form whose times have been measured."""
  forward, gradient = (statistics.median(times) for times in form.times)
  analysis = form.gradient.memory_analysis()
  temporaries = (math.nan if analysis is None else
                 analysis.temp_size_in_bytes / form.args[0][0].nbytes)
  nats = float(form.forward(*form.args)) / form.args[-1].shape[0]
  return Timing(form.name, nats, 1e3 * forward, 1e3 * gradient, temporaries,
                form.traffic / gradient / 1e9)


def table(rows: list[Timing]) -> str:
  """The rows as a Markdown table."""
  lines = ['| form | nats | forward ms | value + gradient ms '
           '| temporaries / logits | GB/s | speed / numpyro |',
           '|---|--:|--:|--:|--:|--:|--:|']
  for row in rows:
    speed = '' if row.speed is None else f'{row.speed:.2f}'
    lines.append(
        f'| {row.form} | {row.nats:.1f} | {row.forward_ms:.2f} '
        f'| {row.gradient_ms:.2f} | {row.temporaries:.2f} '
        f'| {row.gigabytes_per_s:.1f} | {speed} |')
  return '\n'.join(lines)


def main(argv: Sequence[str]) -> None:
  """Runs the benchmark, prints its table and writes it to --output."""
  del argv
  output = pathlib.Path(_OUTPUT.value) if _OUTPUT.value else None
  if output and output.suffix not in ('.json', '.md'):
    raise UserError(f'--output={output} must end in .json or .md')
  if output and not output.parent.is_dir():
    raise UserError(f'--output={output}: there is no folder {output.parent}; '
                    'create it')
  import jax

  forms = [
      compile_form(name, num_params, log_prob, _BATCH.value,
                   _COMPONENTS.value, _DIMS.value, _DTYPE.value)
      for name, (num_params, log_prob) in all_forms().items()]
  measure_times(forms, _REPEATS.value)
  rows = [summarize(form) for form in forms]
  reference = [row.gradient_ms for row in rows if row.form == REFERENCE]
  for row in rows:
    row.speed = reference[0] / row.gradient_ms if reference else None
  device = jax.devices()[0]
  setting = (f'batch {_BATCH.value}, components {_COMPONENTS.value}, dims '
             f'{_DIMS.value}, {_DTYPE.value}, {device.device_kind}, '
             f'jax {jax.__version__}, median of {_REPEATS.value}')
  print(f'{setting}\n\n{table(rows)}')
  if output and output.suffix == '.md':
    output.write_text(f'{setting}\n\n{table(rows)}\n')
  elif output:
    output.write_text(json.dumps(
        {'setting': setting, 'rows': [dataclasses.asdict(r) for r in rows]},
        indent=2) + '\n')


if __name__ == '__main__':
  common.run(main)
