"""Trains, measures and compares methods by one protocol: one command, a table.

    python -m experiments.compare --flagfile=launch/flags/compare_small.flags \\
        --data=folder:flowers17/train --eval_data=folder:flowers17/test \\
        --workdir=runs/compare

Each method of --methods is trained with every seed for the same time, each run
is measured by `experiments.evaluate`, and WORKDIR/table.md, table.tex,
table.csv, intervals.png and sheet.png put them beside the photographs left
grey and the truth. What has been finished is not done again: the command goes
on where it was stopped. Finished runs, evaluations and the pictures of other
programs join by NAME=PATH.
"""

import ast
import pathlib
import shlex
from collections.abc import Sequence
from typing import Any

from absl import flags

from colorjax.errors import UserError
from experiments import common
from launch.options import from_words

common.define_photo_flags()
flags.adopt_module_key_flags(common)

flags.DEFINE_string('workdir', None, 'Directory for runs, evaluations, logs '
                    'and the table.', required=True)
flags.DEFINE_string('data', 'bundled', f'Training photographs: '
                    f'{common.DATA_FORM}')
flags.DEFINE_string('eval_data', 'bundled', 'Held-out photographs, of '
                    f'validation losses and of the table: {common.DATA_FORM}')
flags.DEFINE_list(
    'methods', [], 'Methods to train and measure: names of experiments, or '
    'ROW=EXPERIMENT for a row of another name, with a flagfile of its own; '
    'or mean_color, marginal and levin, which need no training.')
flags.DEFINE_string(
    'flagfiles', 'launch/flags/{}_small.flags', 'Flagfile of a row; {} '
    'stands for its name.')
flags.DEFINE_list('seeds', ['0'], 'Training seeds.')
flags.DEFINE_float(
    'budget_seconds', 0, 'Seconds of training for each run on this machine: '
    'the number of steps is found by a trial of some steps and kept in '
    'WORKDIR/budget.json. 0: the steps of the flagfiles.', lower_bound=0)
flags.DEFINE_list('runs', [], 'Finished training runs to measure, NAME=WORKDIR '
                  'each; runs of one name are its seeds.')
flags.DEFINE_list('outputs', [], 'Folders of pictures by other programs to '
                  'measure, NAME=FOLDER each.')
flags.DEFINE_list('evaluations', [], 'Finished evaluations, NAME=WORKDIR '
                  'each; of one name: its seeds.')
flags.DEFINE_string('against', 'grey', 'Method that significance is against.')
flags.DEFINE_list(
    'metrics', ['ab_distance', 'psnr', 'ssim', 'ciede2000', 'auc_rebalanced',
                'chroma', 'delta_colorfulness_abs_of_means', 'lpips_alex',
                'fid_pytorch_fid', 'best_of_k', 'ab_distance_hinted',
                'bits_per_dim', 'coverage_90'],
    'Columns of the table; table.csv has every metric.')
flags.DEFINE_bool('drop_near_duplicates', True, 'Leave photographs of '
                  '--eval_data out that are in --data too.')
flags.DEFINE_bool('mixed_protocols', False, 'Allow rows of other protocols or '
                  'photographs; they are marked.')
flags.DEFINE_string(
    'launch', '', 'Where jobs are started, in flags of launch.sweep with '
    'blanks between: --gpus=0,1, or --executor=slurm --partition=gpu. By '
    'default one job at a time on each GPU, or one with all processors.')
flags.DEFINE_string(
    'evaluate_flags', '', 'More flags for experiments.evaluate, with blanks '
    'between: --protocol, --num_samples, files of weights.')


# What may differ when a comparison is gone on with: which rows there are, and
# what is shown of them. What a row is made with may not.
_HARMLESS = frozenset({
    'workdir', 'data_dir', 'engine', 'num_threads', 'launch', 'methods',
    'seeds', 'runs', 'outputs', 'evaluations', 'metrics', 'against',
    'mixed_protocols'})


# Rows that are no script: those of `colorjax.runs.compare`, which imports JAX.
_BASELINES = ('mean_color', 'marginal', 'levin')
_REFERENCES = ('truth', 'grey')


def main(argv: Sequence[str]) -> int:
  """Runs what is missing, then writes and prints the table."""
  del argv
  # Wrong methods are refused at once; what follows imports JAX.
  methods = _methods()
  from colorjax.runs import comparison_report
  from colorjax.runs.compare import CompareOptions, finish, split_words
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
  # Wrong names are found now, and not after an hour.
  comparison_report.check(options)
  workdir = pathlib.Path(options.workdir).expanduser()
  settings = common.flags_text()
  with claim_workdir(workdir, settings, harmless=_HARMLESS):
    comparison_report.write(
        options, finish(options), settings=settings,
        command='python -m experiments.compare --flagfile='
        + shlex.quote(f'{workdir}/flags.txt'))
  return 0


def _methods() -> dict[str, str]:
  """The script of each row of --methods by the row's name.

  The references stand in every table, asked for or not.
  """
  scripts = training_scripts()
  methods: dict[str, str] = {}
  for entry in flags.FLAGS.methods:
    name, equals, script = entry.partition('=')
    script = script if equals else name
    if entry in _REFERENCES:
      continue
    if equals and script in _BASELINES:
      raise UserError(f'--methods={entry}: a row of {script} has that name')
    if script not in (*scripts, *_BASELINES):
      raise UserError(f'--methods: {script or entry} is no method; there are '
                      f'{", ".join([*scripts, *_BASELINES, *_REFERENCES])}')
    if name in methods:
      raise UserError(f'--methods: two rows are called {name}; ROW=EXPERIMENT '
                      'gives another name')
    if equals and name in _BASELINES:
      raise UserError(f'--methods={entry}: {name} is the name of a baseline; '
                      'call the row otherwise')
    methods[name] = script
  return methods


def training_scripts() -> list[str]:
  """The scripts beside this one that train a method.

  Those are the ones that say so by a constant METHOD. They are read and not
  imported: two scripts that define the same flag cannot be.
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
    raise UserError(f'--seeds={",".join(given)}: whole numbers from 0, each '
                    'once, with commas between')
  return [int(seed) for seed in given]


def _grouped(flag: str) -> dict[str, list[str]]:
  """Paths by name of a flag of NAME=PATH entries."""
  groups: dict[str, list[str]] = {}
  for entry in flags.FLAGS[flag].value or ():
    name, equals, path = entry.partition('=')
    if not equals or not name or not path:
      raise UserError(f'--{flag}={entry}: NAME=PATH is meant')
    groups.setdefault(name, []).append(path)
  return groups


def _outputs() -> dict[str, str]:
  groups = _grouped('outputs')
  if any(len(paths) > 1 for paths in groups.values()):
    raise UserError('--outputs: one folder for each name')
  return {name: paths[0] for name, paths in groups.items()}


if __name__ == '__main__':
  common.run(main)
