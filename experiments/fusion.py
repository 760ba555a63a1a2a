"""Trains the fusion network, which a pretrained backbone tells what it sees.

    python -m experiments.fusion --image_size=64 --optimizer=adamw \\
        --ema_decay=0.99 --workdir=runs/fusion

`experiments.xception_fusion` and `experiments.inception_fusion` are the two
published systems: this script with the one backbone or the other. Beside the
backbone, EfficientNet-Lite0, the defaults are as published.
"""

import pathlib
from collections.abc import Sequence

from absl import flags

from experiments import common

common.define_training_flags()
common.define_backbone_flags()
common.define_rebalancing_flags()
flags.adopt_module_key_flags(common)

for _name, _published in {
    'image_size': 224, 'optimizer': 'adam', 'schedule': 'constant',
    'warmup_steps': 0, 'clip_norm': 0, 'ema_decay': 0}.items():
  flags.FLAGS.set_default(_name, _published)

_BACKBONE = flags.DEFINE_enum(
    'backbone', 'efficientnet_lite0',
    ['efficientnet_lite0', 'xception', 'inception_resnet_v2'],
    'The pretrained network. The last two are those of the published systems; '
    'the weights of the first come with this package.')
_LOSS = flags.DEFINE_string(
    'loss', 'mse', common.LOSS_HELP + ' As published: mse.')
_WIDTH = flags.DEFINE_float(
    'width', 1.0, 'Share of the published channels, for small machines.',
    0.01, 4)
_EMBEDDING = flags.DEFINE_enum(
    'embedding', None,
    ['logits', 'probabilities', 'features', 'standardized'], 'What the '
    'backbone tells: its 1000 classes before or after the softmax, the '
    'pooled features that they are read from, or the logits brought to mean '
    '0 and deviation 1. If not given, logits as published, but standardized '
    'with --backbone_weights=random, whose logits have any size.')
_EMBEDDING_SIZE = flags.DEFINE_integer(
    'embedding_size', None, 'Side in pixels that the backbone sees '
    'photographs at; if not given, what it was trained on: 224, or 299 for '
    'the published two.')
_EMBEDDINGS = flags.DEFINE_enum(
    'embeddings', 'cached', ['cached', 'computed'], 'cached: once a '
    'photograph, of the whole of it, kept on disk for later runs. computed: '
    'in every step, of the crop that the step sees.')
_EMBEDDING_DIR = flags.DEFINE_string(
    'embedding_dir', None, 'Folder for cached embeddings. If not given it is '
    "FOLDER.embeddings beside the photographs, 'embeddings' where TFDS keeps "
    'its data sets, or in the work directory if these cannot be written.')
_CLASS_NAMES = flags.DEFINE_string(
    'class_names', None, "Keras's imagenet_class_index.json: the report then "
    'tells the five most probable classes of each photograph.')

METHOD = 'colorjax.methods.fusion'

_EMBEDS_BY = ('backbone', 'backbone_variant', 'embedding', 'embedding_size',
              'dtype')  # the settings that an embedding depends on


def main(argv: Sequence[str]) -> int:
  """Trains, evaluates and reports; goes on where an earlier run stopped."""
  del argv
  # These import JAX, which --help does not wait for.
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
  # The network paints a quarter of the photograph's sides at least.
  settings |= common.rebalancing(METHOD, settings, block_size=2)
  options = common.train_options()
  cached = embedding.CachedEmbeddings(
      network={name: settings[name] for name in _EMBEDS_BY},
      photos=options.photos, image_size=options.image_size,
      batch_size=options.batch_size, directory=_path(_EMBEDDING_DIR.value))
  return common.train(
      METHOD, settings,
      embed_photos=cached if _EMBEDDINGS.value == 'cached' else None,
      row_titles=embedding.class_titles(kind, _path(_CLASS_NAMES.value)))


def _weights_of(backbone: str) -> str:
  """The file that --backbone_weights names for the backbone, or ''."""
  text = flags.FLAGS.backbone_weights or ''
  named = dict(part.split('=', 1) for part in text.split(',') if '=' in part)
  return named.get(backbone, '' if named else text)


def _path(text: str | None) -> pathlib.Path | None:
  return None if text is None else pathlib.Path(text)


if __name__ == '__main__':
  common.run(main)
