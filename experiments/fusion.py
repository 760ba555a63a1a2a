"""Trains the fusion network, which uses the embedding of a pretrained backbone.

    python -m experiments.fusion --image_size=64 --optimizer=adamw \\
        --ema_decay=0.99 --workdir=runs/fusion

`experiments.xception_fusion` and `experiments.inception_fusion` are the two
published systems: this script with one of the two backbones. The defaults are
as published, except for the backbone, which is EfficientNet-Lite0.
"""

import pathlib
from collections.abc import Sequence

from absl import flags

from experiments import common, network_flags, rebalancing, script

common.define_training_flags()
network_flags.define_backbone_flags()
common.define_rebalancing_flags()
flags.adopt_module_key_flags(common)
flags.adopt_module_key_flags(network_flags)

for _name, _published in {
    'image_size': 224, 'optimizer': 'adam', 'schedule': 'constant',
    'warmup_steps': 0, 'clip_norm': 0, 'ema_decay': 0}.items():
  flags.FLAGS.set_default(_name, _published)

_BACKBONE = flags.DEFINE_enum(
    'backbone', 'efficientnet_lite0',
    ['efficientnet_lite0', 'xception', 'inception_resnet_v2'],
    'The pretrained network. The published systems have xception and '
    'inception_resnet_v2. The weights of efficientnet_lite0 are installed with '
    'colorjax.')
_LOSS = flags.DEFINE_string(
    'loss', 'mse', common.LOSS_HELP + ' As published: mse.')
_WIDTH = flags.DEFINE_float(
    'width', 1.0, 'Factor for the published numbers of channels, to fit small '
    'machines.', 0.01, 4)
_EMBEDDING = flags.DEFINE_enum(
    'embedding', None,
    ['logits', 'probabilities', 'features', 'standardized'], 'Output of the '
    'backbone that is used as embedding: the logits or probabilities of its '
    '1000 classes, the pooled features before the last layer, or the logits '
    'standardized to mean 0 and deviation 1. If not given, logits, as '
    'published, but standardized with --backbone_weights=random, because '
    'random networks have logits of arbitrary scale.')
_EMBEDDING_SIZE = flags.DEFINE_integer(
    'embedding_size', None, 'Side in pixels of the photographs that the '
    'backbone sees; if not given, the size it was trained with: 224 for '
    'efficientnet_lite0, 299 for the others.')
_EMBEDDINGS = flags.DEFINE_enum(
    'embeddings', 'cached', ['cached', 'computed'], 'cached: computed once for '
    'each whole photograph and stored on disk for later runs. computed: '
    'computed in every step from the random crop.')
_EMBEDDING_DIR = flags.DEFINE_string(
    'embedding_dir', None, 'Folder for cached embeddings. If not given, '
    "FOLDER.embeddings beside the photographs, or 'embeddings' in the folder "
    'of TFDS data sets, or in the work directory if these cannot be written.')
_CLASS_NAMES = flags.DEFINE_string(
    'class_names', None, "Keras's imagenet_class_index.json: the report then "
    'shows the five most probable classes of each photograph.')

METHOD = 'colorjax.methods.fusion'

# The settings that an embedding depends on.
_EMBEDDING_SETTINGS = ('backbone', 'backbone_variant', 'embedding',
                       'embedding_size', 'dtype')


def training() -> common.Training:
  """Returns the training that the flags describe."""
  # These import JAX, which --help must not wait for.
  from colorjax import backbones
  from colorjax.runs import embedding

  weights = flags.FLAGS.backbone_weights
  kind = _EMBEDDING.value or (
      'standardized' if weights == 'random' else 'logits')
  settings = {
      'backbone': _BACKBONE.value,
      'backbone_variant': backbones.variant_of(
          _weights_of(_BACKBONE.value)),
      'embedding': kind,
      'embedding_size': _EMBEDDING_SIZE.value,
      'loss': _LOSS.value,
      'width': _WIDTH.value,
      'dtype': flags.FLAGS.dtype,
  }
  # The ab field has half the sides of the photograph.
  settings |= rebalancing.settings_of(METHOD, settings, block_size=2)
  options = common.train_options()
  cached = embedding.CachedEmbeddings(
      network={name: settings[name] for name in _EMBEDDING_SETTINGS},
      photos=options.photos, image_size=options.image_size,
      batch_size=options.batch_size, directory=_path(_EMBEDDING_DIR.value))
  return common.Training(METHOD, settings, more={
      'embed_photos': cached if _EMBEDDINGS.value == 'cached' else None,
      'row_titles': embedding.class_titles(kind, _path(_CLASS_NAMES.value))})


def main(argv: Sequence[str]) -> int:
  """Trains, measures and reports; resumes an earlier run."""
  del argv
  return common.train(training())


def _weights_of(backbone: str) -> str:
  """The file for the backbone in --backbone_weights, or ''."""
  text = flags.FLAGS.backbone_weights or ''
  named = dict(part.split('=', 1) for part in text.split(',') if '=' in part)
  return named.get(backbone, '' if named else text)


def _path(text: str | None) -> pathlib.Path | None:
  return None if text is None else pathlib.Path(text)


if __name__ == '__main__':
  script.run(main)
