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

import pathlib
from collections.abc import Sequence

from absl import flags

from experiments import common

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
flags.DEFINE_string('against', 'grey', 'Row that significance is against.')
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
flags.DEFINE_list('devices', [], 'Numbers of GPUs: as many jobs run at once, '
                  'each on one. None: one job at a time.')
flags.DEFINE_string(
    'evaluate_flags', '', 'More flags for experiments.evaluate, with blanks '
    'between: --protocol, --num_samples, files of weights.')


# What may differ when a comparison is gone on with: which rows there are, and
# what is shown of them. What a row is made with may not.
_HARMLESS = frozenset({
    'workdir', 'data_dir', 'engine', 'num_threads', 'devices', 'methods',
    'seeds', 'runs', 'outputs', 'evaluations', 'metrics', 'against',
    'mixed_protocols'})


def main(argv: Sequence[str]) -> int:
  """Runs what is missing, then writes and prints the table."""
  del argv
  from colorjax.runs.workdir import claim_workdir
  from experiments import comparison_jobs, comparison_report

  # Wrong flags are found now, and not after an hour.
  comparison_report.check_flags(comparison_jobs.names())
  workdir = pathlib.Path(flags.FLAGS.workdir)
  with claim_workdir(workdir, common.flags_text(), harmless=_HARMLESS):
    rows = comparison_jobs.finish(workdir)
    comparison_report.write(workdir, rows, flags.FLAGS.metrics)
  return 0


if __name__ == '__main__':
  common.run(main)
