"""Prints what a training step needs, without training and without data.

    python -m experiments.benchmarks.memory --experiment=mbm \\
        --flagfile=launch/flags/mbm.flags [--remat] [--accumulate=4]

It takes all flags of the experiment. The step is compiled for one device at two
or more batch sizes, and XLA's own analysis gives its memory and arithmetic. A
straight line through the batch sizes estimates the largest batch for each card.

Without a GPU, XLA's CPU backend compiles the step, with the options of
`step_cost.COMPILER_OPTIONS`. Its memory is only near that of a GPU, which fuses
other operations and computes convolutions in other ways; bfloat16 saves no
memory there. Run on a GPU, the command analyzes the programs of that GPU.
"""

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags

from colorjax.errors import UserError
from experiments import script

_EXPERIMENT = flags.DEFINE_string(
    'experiment', None, 'Training script in experiments/, such as mbm.',
    required=True)
_BATCH_SIZES = flags.DEFINE_list(
    'batch_sizes', None, 'Numbers of photographs on the device, at least two; '
    'if not given, half of --batch_size, and --batch_size.')
_CARDS = flags.DEFINE_list(
    'cards', ['16', '24', '80'], 'Memory of GPUs, GB of 10^9 bytes.')

_COMPILE = flags.DEFINE_bool(
    'compile', True, 'Compile the step, which may take minutes. --nocompile '
    'prints only what is known before: state, batch and arithmetic.')


def main(argv: Sequence[str]) -> int:
  """Prints the tables."""
  del argv
  # These import JAX, which --help must not wait for.
  import jax

  from colorjax import records
  from colorjax.runs import step_cost

  if 'rebalance' in flags.FLAGS and flags.FLAGS.rebalance is not None and (
      flags.FLAGS.prior is None):
    print('note: without --prior, the weights of --rebalance are left out: '
          'they need the colors of the photographs')
    flags.FLAGS['rebalance'].value = None
  training = _module(_EXPERIMENT.value).training()
  options = training.options()
  colorizer = records.Record(
      method=training.method, settings=dict(training.settings),
      image_size=options.image_size).build()
  costs = [
      step_cost.analyze(
          colorizer, options, size,
          has_regions=training.more.get('regions') is not None,
          has_embeddings=training.more.get('embed_photos') is not None,
          compiles=_COMPILE.value)
      for size in _sizes(options.batch_size, options.accumulate)]
  print(f'{_EXPERIMENT.value}, {options.image_size} x {options.image_size}, '
        f'{flags.FLAGS.dtype}, accumulate={options.accumulate}, '
        f'remat={options.remat}: {costs[0].parameters:,} parameters\n'
        f'by the {jax.default_backend()} backend of XLA\n\n'
        '| photographs | state MB | batch MB | temporary MB | total MB | '
        'GFLOP a step | GFLOP a photograph |\n|--:|--:|--:|--:|--:|--:|--:|')
  for cost in costs:
    compiled = ('| | ' if cost.temporary is None else
                f'| {cost.temporary / 1e6:.1f} | {cost.total / 1e6:.1f} ')
    print(f'| {cost.batch_size} | {cost.state / 1e6:.1f} '
          f'| {cost.batch / 1e6:.1f} {compiled}'
          f'| {cost.flops / 1e9:.1f} '
          f'| {cost.flops / cost.batch_size / 1e9:.2f} |')
  if not _COMPILE.value:
    return 0
  fixed, each = step_cost.line(costs)
  print(f'\ntotal = {fixed / 1e6:.1f} MB + {each / 1e6:.2f} MB a photograph\n\n'
        '| card, GB | largest batch per device |\n|--:|--:|')
  for card in map(float, _CARDS.value):
    largest = step_cost.largest_batch(
        costs, step_cost.CARD_SHARE * card * 1e9, multiple=options.accumulate)
    print(f'| {card:g} | {largest} |')
  where = '' if jax.default_backend() == 'gpu' else (
      f' The {jax.default_backend()} backend is only near that of a GPU.')
  print('\nThe largest batch is an estimate, for '
        f'{step_cost.CARD_SHARE:.0%} of the memory, which is what JAX '
        f'takes unless XLA_PYTHON_CLIENT_MEM_FRACTION is set.{where}')
  return 0


def _sizes(batch_size: int, accumulate: int) -> list[int]:
  """The batch sizes to compile."""
  if _BATCH_SIZES.value is None:
    half = max(1, batch_size // accumulate // 2) * accumulate
    return [half, batch_size if batch_size > half else 2 * half]
  try:
    sizes = [int(text) for text in _BATCH_SIZES.value]
  except ValueError:
    sizes = []
  least = 2 if _COMPILE.value else 1
  if len(set(sizes)) < least or min(sizes) < 1:
    raise UserError(f'batch_sizes={",".join(_BATCH_SIZES.value)}: give at '
                    f'least {least} different numbers above 0')
  return sizes


def _module(name: str) -> Any:
  """The script of this name; UserError if it does not train."""
  where = f'experiments.{name}'
  found = name.isidentifier() and importlib.util.find_spec(where)
  module = importlib.import_module(where) if found else None
  if not hasattr(module, 'training'):
    raise UserError(
        f'experiment={name}: there is no training script of this name in '
        'experiments/')
  return module


def _define_flags_of(words: Sequence[str]) -> None:
  """Defines the flags of the experiment that the command line names.

  They must exist before the command line is parsed.
  """
  for i, word in enumerate(words):
    name, equals, value = word.lstrip('-').partition('=')
    if word.startswith('-') and name == 'experiment':
      value = value if equals else ''.join(words[i + 1:i + 2])
      try:
        module = _module(value)
      except UserError as error:
        # Now, before flags that this script requires are missed.
        print(f'error: --{error}', file=sys.stderr)
        sys.exit(script.EXIT_USAGE)
      flags.adopt_module_key_flags(module)
      flags.FLAGS.set_default('workdir', '.')  # It is not used.


if __name__ == '__main__':
  _define_flags_of(sys.argv[1:])
  script.run(main)
