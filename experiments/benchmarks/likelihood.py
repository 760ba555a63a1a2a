"""Measures time and memory of the mixture likelihood, also of other forms.

    python -m experiments.benchmarks.likelihood --batch=32 --components=16

A form is a way to write a likelihood: with colorjax, with numpyro, or plainly
in JAX. Each row of the table has the time of the forward pass, the time of the
value with its gradient with respect to all params and mixing logits, the
temporary memory of that program, and its speed relative to numpyro's Bernoulli
mixture. Forms take turns in one process, so that a busy machine slows all of
them down equally; times are medians.

The unit of memory is one logits array. Traffic is the least that any program
must move for a value with its gradient: params are read once in the forward
pass and once in the backward pass, and gradients are written once.
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
from experiments import script

_BATCH = flags.DEFINE_integer('batch', 32, 'Number of events.', lower_bound=1)
_COMPONENTS = flags.DEFINE_integer(
    'components', 16, 'Number of mixture components.', lower_bound=1)
_DIMS = flags.DEFINE_integer(
    'dims', 8192, 'Size of an event: height x width x 2.', lower_bound=1)
_REPEATS = flags.DEFINE_integer(
    'repeats', 20, 'Number of turns; times are medians over them.',
    lower_bound=1)
_DTYPE = flags.DEFINE_enum(
    'dtype', 'float32', ['float32', 'bfloat16'], 'Type of targets and params.')
_OUTPUT = flags.DEFINE_string(
    'output', None, 'Also write the table to this file, .json or .md.')

REFERENCE = 'bernoulli, numpyro'


@dataclasses.dataclass
class Timing:
  """The measurements of one form.

  Attributes:
    form: family and form.
    nats: mean log-likelihood; all forms of a family must have the same one.
    forward_ms: milliseconds for the value alone.
    gradient_ms: milliseconds for the value and its gradient.
    temporaries: memory of value and gradient in addition to inputs and
      outputs, in units of one logits array; NaN if XLA does not report it.
    gigabytes_per_s: least traffic of value and gradient, divided by their time.
    speed: time of numpyro's Bernoulli mixture, value and gradient, divided by
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
  """A compiled likelihood, with its arguments and the measured times.

  Attributes:
    name: family and form.
    forward: compiled value.
    gradient: compiled value and gradient.
    args: arguments of both.
    traffic: least traffic of value and gradient, in bytes.
    times: seconds of each call of `forward` and of `gradient`.
  """
  name: str
  forward: Any
  gradient: Any
  args: tuple[Any, ...]
  traffic: int
  times: tuple[list[float], list[float]] = dataclasses.field(
      default_factory=lambda: ([], []))


def bernoulli_forms() -> dict[str, Callable[..., Any]]:
  """Returns other forms of the Bernoulli mixture.

  Returns:
    `(targets, params, mixing) -> log-likelihoods` by name.
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
    print('numpyro is not installed, so there is no relative speed: '
          "pip install -e '.[dev]' installs it")
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
  """Returns all forms: (number of params, log-likelihood) by name."""
  from colorjax import losses

  def mixture(family):
    return lambda x, params, mixing: losses.mixture_log_prob(
        x, params, mixing, family=family, event_axes=(1,))

  families = {
      'bernoulli': losses.bernoulli(),
      'continuous bernoulli': losses.continuous_bernoulli(),
      'gaussian': losses.gaussian(),
      'discretized logistic': losses.discretized_logistic(),
  }
  named = {f'{name}, colorjax': (family.num_params, mixture(family))
           for name, family in families.items()}
  return named | {name: (1, form) for name, form in bernoulli_forms().items()}


def compile_form(name: str, num_params: int, log_prob: Callable[..., Any],
                 batch: int, components: int, dims: int, dtype: str) -> Form:
  """Compiles a likelihood for random arrays of the given size."""
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


def take_turns(forms: list[Form], repeats: int) -> None:
  """Times all forms: in each turn, every form is called once."""
  import jax

  for turn in range(repeats + 1):
    for form in forms:
      for program, times in zip(
          (form.forward, form.gradient), form.times, strict=True):
        start = time.perf_counter()
        jax.block_until_ready(program(*form.args))
        if turn:  # the first turn touches memory for the first time
          times.append(time.perf_counter() - start)


def timing_of(form: Form) -> Timing:
  """Returns the measurements of a form that has been timed."""
  forward, gradient = (statistics.median(times) for times in form.times)
  analysis = form.gradient.memory_analysis()
  temporaries = (math.nan if analysis is None else
                 analysis.temp_size_in_bytes / form.args[0][0].nbytes)
  nats = float(form.forward(*form.args)) / form.args[-1].shape[0]
  return Timing(form.name, nats, 1e3 * forward, 1e3 * gradient, temporaries,
                form.traffic / gradient / 1e9)


def table(rows: list[Timing]) -> str:
  """Returns the rows as a Markdown table."""
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
    raise UserError(f'--output={output}: the name must end in .json or .md')
  if output and not output.parent.is_dir():
    raise UserError(f'--output={output}: there is no folder {output.parent}; '
                    'choose an existing one')
  import jax

  forms = [
      compile_form(name, num_params, log_prob, _BATCH.value,
                   _COMPONENTS.value, _DIMS.value, _DTYPE.value)
      for name, (num_params, log_prob) in all_forms().items()]
  take_turns(forms, _REPEATS.value)
  rows = [timing_of(form) for form in forms]
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
  script.run(main)
