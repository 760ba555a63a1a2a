"""What `experiments.evaluate` judges, on which photographs, by which networks.

All of it is opened before anything is written: what the flags name wrongly is
refused with nothing left behind.
"""

import dataclasses
import pathlib
from typing import Any

from absl import flags

from colorjax import saved
from colorjax.colorizer import Colorizer, Variables
from colorjax.data import pipeline, sources
from colorjax.data.engines import BatchStream
from colorjax.data.screening import Screen
from colorjax.errors import UserError
from colorjax.evaluation import answers, listing, pairing, protocol
from colorjax.metrics import inception_features, lpips

FLAGS = flags.FLAGS

_DEFAULT_SIZE = 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judged:
  """What is judged, and how its answers are had.

  Attributes:
    name: for people.
    answer: its answers.
    variables: the first argument of `answer`.
    colorizer: the method, None for pictures.
    network_size: side of the square that the method sees.
    outputs: folder of pictures, None for a method.
  """
  name: str
  answer: answers.AnswerFn
  variables: Variables
  colorizer: Colorizer | None = None
  network_size: int | None = None
  outputs: pathlib.Path | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Photographs:
  """The photographs of an evaluation, cut as its protocol has it.

  Attributes:
    photos: the photographs.
    protocol: the protocol.
    paired: their pictures by another program, if these are judged.
  """
  photos: Screen
  protocol: protocol.Protocol
  paired: pairing.PairedOutputs | None = None

  def batches(self, indices: range | list[int], batch_size: int
              ) -> BatchStream:
    """Some photographs in batches, with 'picture' where pictures are judged."""
    stream = pipeline.eval_stream(
        self.photos, batch_size=batch_size, indices=indices,
        image_size=self.protocol.image_size, fit=self.protocol.fit,
        engine=FLAGS.engine, num_threads=FLAGS.num_threads)
    if self.paired is None:
      return stream
    return pairing.attach(stream, self.paired, fit=self.protocol.fit,
                          num_threads=FLAGS.num_threads)

  def stamp(self, indices: range) -> str:
    """Changes with any picture of these photographs; '' without pictures."""
    return self.paired.stamp(indices) if self.paired else ''


def judged(checkpoint: str | None, outputs: str | None, reference: Any
           ) -> Judged:
  """What one of the arguments names.

  Args:
    checkpoint: work directory of a finished run.
    outputs: folder of pictures.
    reference: one of `answers.REFERENCES`.

  Raises:
    UserError: there is no such run, or it cannot be read; --num_samples or
      --num_draws is 1.
  """
  for name in ('num_samples', 'num_draws'):
    if FLAGS[name].value == 1:
      raise UserError(f'--{name}=1: spread is of two at least; 0 takes none')
  if reference is not None:
    return Judged(name=f'reference {reference}', variables={},
                  answer=answers.of_reference(reference))
  if outputs is not None:
    return Judged(name=f'pictures of {outputs}', variables={},
                  answer=answers.of_pictures, outputs=pathlib.Path(outputs))
  assert checkpoint is not None
  colorizer, variables, size = saved.load(pathlib.Path(checkpoint))
  return Judged(
      name=f'checkpoint {checkpoint}', variables=variables,
      colorizer=colorizer, network_size=size,
      answer=answers.of_colorizer(
          colorizer, image_size=size, num_proposals=FLAGS.num_proposals,
          num_samples=FLAGS.num_samples, num_draws=FLAGS.num_draws,
          seed=FLAGS.seed))


def photographs(judged: Judged) -> Photographs:
  """The photographs of --data by the protocol, and their pictures."""
  chosen = _protocol(judged)
  names = listing.read_names(FLAGS.names) if FLAGS.names else None
  source = sources.parse(FLAGS.data, train=False, data_dir=FLAGS.data_dir)
  if names is not None or chosen.count is not None:
    source = listing.choose(source, count=chosen.count, names=names)
  photos = Screen(source, min_chroma=FLAGS.min_chroma,
                  on_bad_image=FLAGS.on_bad_image)
  paired = judged.outputs and pairing.pair(photos, judged.outputs)
  return Photographs(photos=paired.photos if paired else photos,
                     protocol=chosen, paired=paired or None)


def _protocol(judged: Judged) -> protocol.Protocol:
  if FLAGS.protocol == protocol.FOLDER:
    return protocol.folder(
        FLAGS.image_size or judged.network_size or _DEFAULT_SIZE, FLAGS.fit)
  chosen = protocol.PROTOCOLS[FLAGS.protocol]
  for name in ('image_size', 'fit'):
    if FLAGS[name].present and FLAGS[name].value != getattr(chosen, name):
      raise UserError(
          f'--{name}={FLAGS[name].value}: --protocol={chosen.name} sets it to '
          f'{getattr(chosen, name)}; leave the flag out, or take '
          '--protocol=folder')
  if chosen.needs_names and not FLAGS.names:
    raise UserError(f'--protocol={chosen.name} needs --names=FILE: '
                    f'{chosen.photographs}')
  return chosen


def networks() -> dict[str, Any]:
  """Variables of the networks whose files are given, by name.

  Raises:
    UserError: a file cannot be read or holds another network.
  """
  loaded: dict[str, Any] = {}
  for net in ('alex', 'vgg'):
    files = FLAGS[f'lpips_{net}'].value
    if files:
      if len(files) != 2:
        raise UserError(f'--lpips_{net} takes two files with a comma between: '
                        'the classifier and the heads')
      loaded[f'lpips_{net}'] = lpips.build(net).load(
          *(pathlib.Path(file) for file in files))
  for variant in inception_features.VARIANTS:
    file = (FLAGS.inception_fid if variant == 'pytorch_fid'
            else FLAGS.inception_torchvision)
    if file:
      loaded[f'inception_{variant}'] = (
          inception_features.build(variant).load(file))
  return loaded
