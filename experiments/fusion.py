"""What the fusion experiments share: flags, embeddings, titles of photographs.

`experiments.xception_fusion` and `experiments.inception_fusion` are one network
that is told of the photograph by two backbones.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags

from experiments import common, prior_file

if TYPE_CHECKING:
  from colorjax.colorizer import Colorizer, Variables
  from colorjax.data.screening import Screen

FLAGS = flags.FLAGS

_EMBEDS_BY = ('backbone', 'backbone_variant', 'embedding', 'embedding_size',
              'dtype')  # the settings that an embedding depends on

_NUM_CLASSES = 5


def define_flags() -> None:
  """Defines all flags of a fusion experiment; defaults as published."""
  common.define_training_flags()
  common.define_backbone_flags()
  prior_file.define_flags()
  for name, published in {
      'image_size': 224, 'optimizer': 'adam', 'schedule': 'constant',
      'warmup_steps': 0, 'clip_norm': 0, 'ema_decay': 0}.items():
    FLAGS.set_default(name, published)
  flags.DEFINE_string(
      'loss', 'mse', common.LOSS_HELP + ' As published: mse.')
  flags.DEFINE_float(
      'width', 1.0, 'Share of the published channels, for small machines.',
      0.01, 4)
  flags.DEFINE_enum(
      'embedding', None,
      ['logits', 'probabilities', 'features', 'standardized'], 'What the '
      'backbone tells: its 1000 classes before or after the softmax, the '
      'pooled features that they are read from, or the logits brought to mean '
      '0 and deviation 1. If not given, logits as published, but standardized '
      'with --backbone_weights=random, whose logits have any size.')
  flags.DEFINE_integer(
      'embedding_size', None, 'Side in pixels that the backbone sees '
      'photographs at; 299, which it was trained on, if not given.')
  flags.DEFINE_enum(
      'embeddings', 'cached', ['cached', 'computed'], 'cached: once a '
      'photograph, of the whole of it, kept on disk for later runs. computed: '
      'in every step, of the crop that the step sees.')
  flags.DEFINE_string(
      'embedding_dir', None, 'Folder for cached embeddings. If not given it is '
      "FOLDER.embeddings beside the photographs, 'embeddings' where TFDS keeps "
      'its data sets, or in the work directory if these cannot be written.')
  flags.DEFINE_string(
      'class_names', None, "Keras's imagenet_class_index.json: the report then "
      'tells the five most probable classes of each photograph.')


def train(backbone: str) -> int:
  """Trains the fusion network on a backbone, as the flags say.

  Args:
    backbone: a key of `colorjax.methods.fusion.SYSTEMS`.

  Returns:
    The exit code, as of `runner.train`.
  """
  # These import JAX, which --help does not wait for.
  from colorjax import backbones
  from experiments import runner

  settings = {
      'backbone': backbone,
      'backbone_variant': backbones.variant_of(_weights_of(backbone)),
      'embedding': _embedding(),
      **prior_file.settings(),
      **{name: FLAGS[name].value
         for name in ('embedding_size', 'loss', 'width', 'dtype')}}
  network = {name: settings[name] for name in _EMBEDS_BY}

  def embed_photos(colorizer, variables, photos, data, workdir):
    return cached_embeddings(
        network, colorizer, variables, photos, data, workdir)

  return runner.train(
      'colorjax.methods.fusion', settings,
      embed_photos=embed_photos if FLAGS.embeddings == 'cached' else None,
      row_titles=class_titles)


def cached_embeddings(
    network: Mapping[str, Any], colorizer: 'Colorizer',
    variables: 'Variables', photos: 'Screen', data: str,
    workdir: pathlib.Path) -> np.ndarray:
  """The embeddings of all photographs, computed where they are not kept yet.

  Args:
    network: what they depend on beside the backbone's weights.
    colorizer: a method that embeds.
    variables: its variables, with the frozen network that the run has.
    photos: the photographs.
    data: the flag that named them.
    workdir: of the run.

  Returns:
    float32 [N, E], see `embeddings.compute`.
  """
  import jax

  from colorjax import color
  from colorjax.colorizer import FROZEN
  from colorjax.data import embeddings
  from colorjax.methods.fusion import BACKBONE

  assert colorizer.embed is not None
  embed = colorizer.embed
  side = FLAGS.image_size
  frozen = variables['model_state'][FROZEN][BACKBONE]
  state = {'model_state': {FROZEN: {BACKBONE: frozen}}}

  @jax.jit
  def embed_images(state, images):
    return embed(state, color.split_lightness(images)[0])

  channels = jax.eval_shape(embed, state, jax.ShapeDtypeStruct(
      (1, side, side, 1), np.float32)).shape[1]
  weights = embeddings.fingerprint(frozen)
  return embeddings.compute(
      photos, lambda batch: np.asarray(embed_images(state, batch['image'])),
      channels=channels, network={**network, 'weights': weights},
      directory=_directory(data, workdir), batch_size=FLAGS.batch_size,
      image_size=side, fit=FLAGS.fit, engine=FLAGS.engine,
      num_threads=FLAGS.num_threads)


def class_titles(colorizer: 'Colorizer', variables: 'Variables',
                 images: np.ndarray) -> list[str]:
  """The most probable classes of photographs, for a report.

  Args:
    colorizer: a method that embeds.
    variables: its variables.
    images: uint8 sRGB [B, H, W, 3].

  Returns:
    A line for each photograph, 'daisy 81 %, bee 6 %, ...'; [] if no
    --class_names are given or probabilities cannot be read from the embedding.
    UserError for a file that is no table of the classes.
  """
  kind = _embedding()
  if FLAGS.class_names is None or kind not in ('logits', 'probabilities'):
    return []
  import jax

  from colorjax import backbones, color

  assert colorizer.embed is not None
  names = backbones.read_class_names(FLAGS.class_names)
  embedding = colorizer.embed(
      variables, color.split_lightness(jax.numpy.asarray(images))[0])
  if kind == 'logits':
    embedding = jax.nn.softmax(embedding)
  return top_classes(np.asarray(embedding), names)


def top_classes(probabilities: np.ndarray, names: Sequence[str]) -> list[str]:
  """The five most probable classes of each photograph, as a line of text.

  Args:
    probabilities: [B, Q].
    names: of the Q classes.

  Returns:
    For each photograph 'daisy 81 %, bee 6 %, ...'.
  """
  order = np.argsort(-probabilities, axis=-1, kind='stable')[:, :_NUM_CLASSES]
  return [', '.join(f'{names[k].replace("_", " ")} {100 * row[k]:.0f} %'
                    for k in best)
          for row, best in zip(probabilities, order, strict=True)]


def _weights_of(backbone: str) -> str:
  """The file that --backbone_weights names for the backbone, or ''."""
  text = FLAGS.backbone_weights or ''
  named = dict(part.split('=', 1) for part in text.split(',') if '=' in part)
  return named.get(backbone, '' if named else text)


def _embedding() -> str:
  """What the backbone tells; see --embedding."""
  if FLAGS.embedding is not None:
    return FLAGS.embedding
  return 'standardized' if FLAGS.backbone_weights == 'random' else 'logits'


def _directory(data: str, workdir: pathlib.Path) -> pathlib.Path:
  """Where the embeddings of photographs are kept."""
  from colorjax.data import embeddings

  if FLAGS.embedding_dir is not None:
    return pathlib.Path(FLAGS.embedding_dir)
  beside = embeddings.beside(data, data_dir=FLAGS.data_dir)
  if beside is not None and embeddings.is_writable(beside):
    return beside
  return workdir / 'embeddings'
