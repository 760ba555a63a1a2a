"""Trains and measures methods by one protocol and compares them in a table.

    python -m experiments.compare --flagfile=launch/flags/compare_small.flags \\
        --data=folder:flowers17/train --eval_data=folder:flowers17/test \\
        --workdir=runs/compare

Each method of --methods is trained for the same time with every seed, and each
run is measured by `experiments.evaluate`. WORKDIR/table.md, table.tex,
table.csv, intervals.png and sheet.png compare them with each other, with grey
photographs and with the original photographs. Finished jobs are not repeated,
so a command that was stopped can be resumed. --runs, --evaluations and
--outputs add finished runs, finished evaluations and the pictures of other
programs.
"""

import ast
import itertools
import pathlib
import shlex
from collections.abc import Sequence
from typing import Any

from absl import flags

from colorjax.errors import UserError
from experiments import common, script
from launch.options import from_words

common.define_photo_flags()
flags.adopt_module_key_flags(common)

flags.DEFINE_string('workdir', None, 'Directory for runs, evaluations, logs '
                    'and the table.', required=True)
flags.DEFINE_string('data', 'bundled', f'Training photographs: '
                    f'{common.DATA_FORM}')
flags.DEFINE_string('eval_data', 'bundled', 'Held-out photographs, for '
                    f'validation losses and for the table: {common.DATA_FORM}')
flags.DEFINE_list(
    'methods', [], 'Methods to train and measure: names of experiments; or '
    'ROW=EXPERIMENT for a row with another name and its own flagfile; or '
    'mean_color, marginal and levin, which need no training.')
flags.DEFINE_string(
    'flagfiles', 'launch/flags/{}_small.flags', 'Flagfile of a row; {} '
    'stands for the name of the row.')
flags.DEFINE_list('seeds', ['0'], 'Training seeds.')
flags.DEFINE_float(
    'budget_seconds', 0, 'Seconds of training for each run on this machine. '
    'A short trial run determines the number of steps, which is stored in '
    'WORKDIR/budget.json. 0: the number of steps in the flagfiles.',
    lower_bound=0)
for _name, _help in {
    'runs': 'Finished training runs to measure, each as NAME=WORKDIR. Runs '
            'with the same name are different seeds.',
    'outputs': 'Folders of pictures by other programs to measure, each as '
               'NAME=FOLDER.',
    'evaluations': 'Finished evaluations, each as NAME=WORKDIR. Those with the '
                   'same name are different seeds.'}.items():
  flags.DEFINE_multi(
      flags.ListParser(), flags.CsvListSerializer(','), _name, [],
      f'{_help} Separated by commas, or repeat the flag.')
flags.DEFINE_string('against', 'grey', 'The row against which significance is '
                    'tested.')
flags.DEFINE_list(
    'metrics', ['ab_distance', 'psnr', 'ssim', 'ciede2000', 'auc_rebalanced',
                'chroma', 'delta_colorfulness_abs_of_means', 'lpips_alex',
                'fid_pytorch_fid', 'best_of_k', 'ab_distance_hinted_10',
                'bits_per_dim', 'coverage_90'],
    'Columns of the table; table.csv has every metric.')
flags.DEFINE_bool('drop_near_duplicates', True, 'Leave out photographs of '
                  '--eval_data that are also in --data.')
flags.DEFINE_bool('mixed_protocols', False, 'Allow rows with other protocols '
                  'or photographs; they are marked.')
flags.DEFINE_string(
    'launch', '', 'Where jobs run: flags of launch.sweep, separated by spaces, '
    'such as --gpus=0,1 or --executor=slurm. By default, one job at a time '
    'runs on each GPU, or one at a time on all processors.')
flags.DEFINE_string(
    'evaluate_flags', '', 'Further flags for experiments.evaluate, separated '
    'by spaces, such as --protocol, --num_samples, or files of weights.')

# Flags that may differ when a comparison is resumed: those that select rows and
# what the table shows of them.
_HARMLESS = frozenset({
    'workdir', 'data_dir', 'engine', 'num_threads', 'launch', 'methods',
    'seeds', 'runs', 'outputs', 'evaluations', 'metrics', 'against',
    'mixed_protocols'})


# Repeated from `colorjax.runs.compare`, which imports JAX.
_BASELINES = ('mean_color', 'marginal', 'levin')
_REFERENCES = ('truth', 'grey')


def main(argv: Sequence[str]) -> int:
  """Runs the missing jobs, then writes and prints the table."""
  del argv
  # Checked before the imports below, which import JAX.
  methods = _methods()
  from colorjax.runs import comparison_report
  from colorjax.runs.compare import CompareOptions, run_jobs, split_words
  from colorjax.runs.workdir import claim_workdir

  values: dict[str, Any] = {name: flags.FLAGS[name].value for name in (
      'workdir', 'data', 'eval_data', 'flagfiles', 'budget_seconds', 'against',
      'metrics', 'drop_near_duplicates', 'mixed_protocols')}
  options = CompareOptions(
      **values, methods=methods, seeds=_seeds(), runs=_grouped('runs'),
      outputs=_outputs(), evaluations=_grouped('evaluations'),
      evaluate_flags=split_words(flags.FLAGS.evaluate_flags),
      launch=from_words(split_words(flags.FLAGS.launch, name='launch')),
      photos=common.photo_options())
  # Checked now, and not after hours of training.
  comparison_report.check(options)
  workdir = options.directory
  configuration = script.flags_text()
  with claim_workdir(workdir, configuration, harmless=_HARMLESS):
    comparison_report.write(
        options, run_jobs(options), configuration=configuration,
        command='python -m experiments.compare --flagfile='
        + shlex.quote(f'{workdir}/flags.txt'))
  return 0


def _methods() -> dict[str, str]:
  """Returns the experiment of each row of --methods, by the row's name.

  References in --methods are ignored, because every table has them.

  Raises:
    UserError: there is no such experiment, or two rows have the same name.
  """
  experiments = training_scripts()
  methods: dict[str, str] = {}
  for entry in flags.FLAGS.methods:
    name, equals, experiment = entry.partition('=')
    experiment = experiment if equals else name
    if entry in _REFERENCES:
      continue
    if equals and experiment in _BASELINES:
      raise UserError(f'--methods={entry}: the row of {experiment} cannot have '
                      f'another name; give {experiment} alone')
    if experiment not in (*experiments, *_BASELINES):
      raise UserError(f'--methods: there is no method {experiment or entry}; '
                      'choose from '
                      f'{", ".join([*experiments, *_BASELINES, *_REFERENCES])}')
    if name in methods:
      raise UserError(f'--methods: two rows are called {name}; rename one with '
                      'ROW=EXPERIMENT')
    if equals and name in _BASELINES:
      raise UserError(f'--methods={entry}: {name} is the name of a baseline; '
                      'choose another name for the row')
    methods[name] = experiment
  return methods


def training_scripts() -> list[str]:
  """Returns the names of the experiments that train a method.

  These scripts have a constant METHOD. They are parsed and not imported,
  because two scripts that define the same flag cannot both be imported.
  """
  return sorted(path.stem for path in pathlib.Path(__file__).parent.glob('*.py')
                if _trains(path))


def _trains(path: pathlib.Path) -> bool:
  tree = ast.parse(path.read_bytes(), filename=str(path))
  return any(
      isinstance(node, ast.Assign) and any(
          isinstance(target, ast.Name) and target.id == 'METHOD'
          for target in node.targets) for node in tree.body)


def _seeds() -> list[int]:
  given = flags.FLAGS.seeds
  if not all(seed.isascii() and seed.isdigit() for seed in given):
    raise UserError(f'--seeds={",".join(given)}: give different integers of at '
                    'least 0, separated by commas')
  return [int(seed) for seed in given]


def _grouped(flag: str) -> dict[str, list[str]]:
  """The paths of a flag with items NAME=PATH, by name."""
  groups: dict[str, list[str]] = {}
  for entry in itertools.chain(*(flags.FLAGS[flag].value or ())):
    name, equals, path = entry.partition('=')
    if not equals or not name or not path:
      raise UserError(f'--{flag}={entry}: give NAME=PATH')
    groups.setdefault(name, []).append(path)
  return groups


def _outputs() -> dict[str, str]:
  groups = _grouped('outputs')
  for name, paths in groups.items():
    if len(paths) > 1:
      raise UserError(f'--outputs: {name} is given {len(paths)} times; give '
                      'one folder for each name')
  return {name: paths[0] for name, paths in groups.items()}


if __name__ == '__main__':
  script.run(main)
