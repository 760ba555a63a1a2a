"""Measures a trained method, or the pictures of any program, by all metrics.

    python -m experiments.evaluate --checkpoint=runs/mbm \\
        --data=folder:photos/test --workdir=runs/mbm_evaluated
    python -m experiments.evaluate --outputs=ddcolor_pngs \\
        --protocol=imagenet_val5k --data=folder:imagenet/val --workdir=out

Writes WORKDIR/metrics.json (mean, low, high and n of each metric),
protocol.json (how they were obtained: photographs, a hash of their pixels,
settings), photographs.csv (one line per photograph), statistics.npz and
report/. An evaluation that was interrupted is resumed. `experiments.compare`
puts several evaluations in one table.
"""

import dataclasses
import shlex
from collections.abc import Sequence
from typing import Any

from absl import flags

from experiments import common, model_flags, replica_flags, script

common.define_photo_flags()
model_flags.define_checkpoint_flags()
model_flags.define_ask_flag()
replica_flags.define_replica_flag()
flags.adopt_module_key_flags(replica_flags)
script.define_host_flags()
flags.adopt_module_key_flags(script)
flags.adopt_module_key_flags(common)
flags.adopt_module_key_flags(model_flags)

flags.DEFINE_string(
    'outputs', None, 'Folder with the colorings of any program: pictures with '
    'the names of their photographs, of the same size or cut to the square '
    'that is measured.')
flags.DEFINE_enum(
    'reference', None, ['truth', 'grey'], 'Measure the original photographs, '
    'or grey ones, to see the extreme values of the metrics.')
flags.DEFINE_string('workdir', None, 'Directory for the results, from which '
                    'an interrupted evaluation is resumed.', required=True)
flags.DEFINE_string('data', 'bundled', f'Photographs: {common.DATA_FORM}')
flags.DEFINE_string(
    'train_data', None, 'Photographs that the method was trained on. '
    'Near-duplicates of them among the measured photographs are counted: '
    f'{common.DATA_FORM}')
flags.DEFINE_bool('drop_near_duplicates', False, 'Leave out near-duplicates '
                  'of --train_data.')
flags.DEFINE_enum(
    'protocol', 'folder', ['folder', 'imagenet_val5k', 'imagenet_val50k',
                           'imagenet_ctest10k', 'coco_stuff_val5k'],
    'Which photographs of --data are measured, and how they are cut. folder: '
    'all, cut by --image_size and --fit. The other protocols set both '
    'themselves.')
flags.DEFINE_string(
    'names', None, 'File with the names of the photographs to measure, one '
    'per line, in this order; imagenet_ctest10k needs it.')
flags.DEFINE_integer(
    'image_size', None, 'Side of the squares that are measured, in pixels, '
    'with --protocol=folder; if not given, that of the network, or 256.',
    lower_bound=11)
flags.DEFINE_integer('batch_size', 32, 'Photographs per batch, over all '
                     'devices; it changes no metric.', lower_bound=1)
flags.DEFINE_integer('num_proposals', 8, 'Number K of proposals; fewer if the '
                     'method has no more.', lower_bound=1)
flags.DEFINE_integer('num_samples', 8, 'Number n of random samples.',
                     lower_bound=0)
flags.DEFINE_integer('num_draws', 19, 'Number of draws from the distribution, '
                     'for calibration. With 19, each rank has a probability '
                     'of 5 %.', lower_bound=0)
flags.DEFINE_integer('seed', 0, 'Seed of samples and draws, and of --film.')
flags.DEFINE_string(
    'film', None, 'Color imitated scans of old prints in place of the '
    'photographs: plate (a blue-sensitive glass plate with stains), newspaper '
    '(a faded halftone) or print (a soft vignetted portrait). Colorings are '
    'still compared with the photographs.')
flags.DEFINE_integer('report_photos', 10, 'Number of photographs in each '
                     'sheet of the report.', lower_bound=1)
for _net in ('alex', 'vgg'):
  flags.DEFINE_list(
      f'lpips_{_net}', None, 'Two files for LPIPS: the weights of '
      "torchvision's classifier, and the heads of the package lpips "
      f'(v0.1/{_net}.pth).')
flags.DEFINE_string(
    'inception_fid', None, 'File for FID and KID as in pytorch-fid: '
    'pt_inception-2015-12-05-6726825d.pth.')
flags.DEFINE_string(
    'inception_torchvision', None, 'File for FID and KID with the weights of '
    'torchvision, also as in DDColor: inception_v3_google-*.pth.')


def main(argv: Sequence[str]) -> int:
  """Measures and reports; resumes an interrupted evaluation."""
  del argv
  # This imports JAX, which --help must not wait for.
  from colorjax.runs import evaluate

  evaluate.evaluate(_options(evaluate.EvaluateOptions),
                    configuration=script.flags_text(),
                    command='python -m experiments.evaluate --flagfile='
                    + shlex.quote(f'{flags.FLAGS.workdir}/flags.txt'))
  return 0


def _options(options: Any) -> Any:
  """Makes `EvaluateOptions` from the flags."""
  given = {field.name: flags.FLAGS[field.name].value
           for field in dataclasses.fields(options)
           if field.name not in ('checkpoint', 'photos', 'fit', 'ask')}
  # None if the flag is not given, so that a protocol can set it.
  fit = flags.FLAGS['fit']
  return options(
      **given, checkpoint=model_flags.checkpoint(),
      ask=model_flags.ask_options(), photos=common.photo_options(),
      fit=fit.value if fit.present else None)


if __name__ == '__main__':
  script.run(main)
