"""Measures a checkpoint, or the pictures of any program, by every metric.

    python -m experiments.evaluate --checkpoint=runs/mbm \\
        --data=folder:photos/test --workdir=runs/mbm_evaluated
    python -m experiments.evaluate --outputs=ddcolor_pngs \\
        --protocol=imagenet_val5k --data=folder:imagenet/val --workdir=out

Writes WORKDIR/metrics.json (each metric: mean, low, high, n), protocol.json
(how it was obtained: photographs, a hash of their pixels, settings),
photographs.csv (a line a photograph), statistics.npz and report/. A killed run
started again goes on. `experiments.compare` puts finished ones in one table.
"""

import dataclasses
import shlex
from collections.abc import Sequence
from typing import Any

from absl import flags

from experiments import common

common.define_photo_flags()
common.define_host_flags()
flags.adopt_module_key_flags(common)

flags.DEFINE_string(
    'checkpoint', None, 'Work directory of a finished run: its method is '
    'judged.')
flags.DEFINE_string(
    'outputs', None, 'Folder of the colorings of any program: pictures with '
    'the names of their photographs, in their size or as the square that is '
    'judged.')
flags.DEFINE_enum(
    'reference', None, ['truth', 'grey'], 'Judges the photographs themselves, '
    'or left grey: what the figures are at their ends.')
flags.DEFINE_string('workdir', None, 'Directory for the results; a run that '
                    'was stopped goes on there.', required=True)
flags.DEFINE_string('data', 'bundled', f'Photographs: {common.DATA_FORM}')
flags.DEFINE_string(
    'train_data', None, 'The photographs that the method was trained on: '
    f'near-duplicates of those judged are counted: {common.DATA_FORM}')
flags.DEFINE_bool('drop_near_duplicates', False, 'Leave those near-duplicates '
                  'out.')
flags.DEFINE_enum(
    'protocol', 'folder', ['folder', 'imagenet_val5k', 'imagenet_val50k',
                           'imagenet_ctest10k', 'coco_stuff_val5k'],
    'Which photographs of --data, cut how. folder: all of them, by '
    '--image_size and --fit; the others set these themselves.')
flags.DEFINE_string(
    'names', None, 'File with the names of the photographs to take, one a '
    'line, in this order; imagenet_ctest10k needs it.')
flags.DEFINE_integer(
    'image_size', None, 'Side of the squares that are judged, with '
    '--protocol=folder; that of the network, or 256, if not given.',
    lower_bound=11)
flags.DEFINE_integer('batch_size', 32, 'Photographs at a time, over all '
                     'devices; it changes no figure.', lower_bound=1)
flags.DEFINE_integer('num_proposals', 8, 'K; fewer if the method has no more.',
                     lower_bound=1)
flags.DEFINE_integer('num_samples', 8, 'Random answers, n.', lower_bound=0)
flags.DEFINE_integer('num_draws', 19, 'Draws from the distribution, for '
                     'calibration; 19 make ranks of 5 %.', lower_bound=0)
flags.DEFINE_integer('seed', 0, 'Of samples and draws.')
flags.DEFINE_integer('report_photos', 10, 'Photographs in each sheet of the '
                     'report.', lower_bound=1)
for _net in ('alex', 'vgg'):
  flags.DEFINE_list(
      f'lpips_{_net}', None, 'Two files, for LPIPS: the weights of '
      "torchvision's classifier, and the heads of the package lpips "
      f'(v0.1/{_net}.pth).')
flags.DEFINE_string(
    'inception_fid', None, "For FID and KID as pytorch-fid has them: its file "
    'pt_inception-2015-12-05-6726825d.pth.')
flags.DEFINE_string(
    'inception_torchvision', None, "For FID and KID with torchvision's "
    'weights, plain and as DDColor has them: inception_v3_google-*.pth.')

common.define_asking_flags()


def main(argv: Sequence[str]) -> int:
  """Measures what the flags name and reports it."""
  del argv
  # This imports JAX, which --help does not wait for.
  from colorjax.runs import evaluate

  evaluate.evaluate(_options(evaluate.EvaluateOptions),
                    settings=common.flags_text(),
                    command='python -m experiments.evaluate --flagfile='
                    + shlex.quote(f'{flags.FLAGS.workdir}/flags.txt'))
  return 0


def _options(options: Any) -> Any:
  """The flags as `EvaluateOptions`; most have the names of its fields."""
  given = {field.name: flags.FLAGS[field.name].value
           for field in dataclasses.fields(options)
           if field.name not in ('photos', 'fit', 'ask')}
  # A protocol sets how photographs are cut, unless one is asked for.
  fit = flags.FLAGS['fit']
  return options(**given, ask=common.asked(), photos=common.photo_options(),
                 fit=fit.value if fit.present else None)


if __name__ == '__main__':
  common.run(main)
