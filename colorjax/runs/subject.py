"""What an evaluation judges, on which photographs, by which networks.

All of it is opened before anything is written: a wrong argument is refused with
nothing left behind.
"""

import dataclasses
import hashlib
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from colorjax import saved
from colorjax.colorizer import Colorizer, Variables
from colorjax.data import pipeline, sources
from colorjax.data.engines import BatchStream
from colorjax.data.screening import Screen
from colorjax.errors import UserError
from colorjax.evaluation import answers, catalogue, listing, pairing, protocol
from colorjax.metrics import inception_features, lpips
from colorjax.runs.photographs import PhotoOptions

_DEFAULT_SIZE = 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
  """An evaluation. Exactly one of the first three says what is judged.

  Attributes:
    checkpoint: work directory of a finished run: its method is judged.
    outputs: folder of the colorings of any program, see `pairing`.
    reference: one of `answers.REFERENCES`.
    workdir: directory for the results; a stopped evaluation goes on there.
    data: the photographs, as `sources.parse` understands it.
    train_data: photographs that the method was trained on, in which
      near-duplicates of those judged are looked for; None does not look.
    drop_near_duplicates: whether these are left out.
    protocol: `protocol.FOLDER`, or a name of `protocol.PROTOCOLS`.
    names: file with the names of the photographs to take; None for all.
    image_size: side of the squares that are judged, in pixels; None for that
      of the protocol, of the method, or 256.
    fit: how photographs become squares; None for that of the protocol, or of
      `photos`.
    photos: how photographs are read.
    batch_size: photographs at a time, over all devices; changes no figure.
    num_proposals: K.
    num_samples: random answers, n; 0 or at least 2.
    num_draws: draws of the distribution, for calibration; 0 or at least 2.
    seed: of samples and draws.
    ask: what the method lets be chosen when it is asked, see
      `Colorizer.options`.
    report_photos: photographs in each sheet of the report.
    lpips_alex: files of the classifier and of the heads, for LPIPS; None
      leaves this metric out.
    lpips_vgg: the same.
    inception_fid: file of pytorch-fid's network, for FID and KID.
    inception_torchvision: file of torchvision's network, for FID and KID.
  """
  checkpoint: str | None = None
  outputs: str | None = None
  reference: Literal['truth', 'grey'] | None = None
  workdir: str
  data: str = 'bundled'
  train_data: str | None = None
  drop_near_duplicates: bool = False
  protocol: str = protocol.FOLDER
  names: str | None = None
  image_size: int | None = None
  fit: Literal['crop', 'squash'] | None = None
  photos: PhotoOptions = dataclasses.field(default_factory=PhotoOptions)
  batch_size: int = 32
  num_proposals: int = 8
  num_samples: int = 8
  num_draws: int = 19
  seed: int = 0
  ask: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  report_photos: int = 10
  lpips_alex: Sequence[str] | None = None
  lpips_vgg: Sequence[str] | None = None
  inception_fid: str | None = None
  inception_torchvision: str | None = None

  def __post_init__(self):
    """UserError for arguments that contradict each other."""
    given = [name for name in ('checkpoint', 'outputs', 'reference')
             if getattr(self, name) is not None]
    if len(given) != 1:
      raise UserError('give exactly one of checkpoint, outputs and reference; '
                      f'given: {", ".join(given) or "none"}')
    for name in ('num_samples', 'num_draws'):
      if getattr(self, name) == 1:
        raise UserError(f'{name}=1: spread needs two at least; 0 takes none')
    if self.protocol not in (protocol.FOLDER, *protocol.PROTOCOLS):
      raise UserError(f'protocol={self.protocol}: choose one of '
                      f'{", ".join((protocol.FOLDER, *protocol.PROTOCOLS))}')
    if self.drop_near_duplicates and self.train_data is None:
      raise UserError('drop_near_duplicates needs train_data: the photographs '
                      'that are not to be among those judged')


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
    options: how they are read.
    paired: their pictures by another program, if these are judged.
  """
  photos: Screen
  protocol: protocol.Protocol
  options: PhotoOptions
  paired: pairing.PairedOutputs | None = None

  def batches(self, indices: range | list[int], batch_size: int, *,
              shard: tuple[int, int] = (0, 1)) -> BatchStream:
    """Some photographs in batches, with 'picture' where pictures are judged.

    Args:
      indices: which photographs.
      batch_size: photographs in a batch, over all shards.
      shard: (which, of how many): the part of each batch that is wanted.
    """
    stream = pipeline.eval_stream(
        self.photos, batch_size=batch_size, indices=indices, shard=shard,
        image_size=self.protocol.image_size, fit=self.protocol.fit,
        engine=self.options.engine, num_threads=self.options.num_threads)
    if self.paired is None:
      return stream
    return pairing.attach(stream, self.paired, fit=self.protocol.fit,
                          num_threads=self.options.num_threads)

  def stamp(self, indices: range) -> str:
    """Changes with what is measured of these photographs.

    That is: which photographs they are and what is in their files, the files
    of their pictures, and which metrics there are.
    """
    source = self.photos.source
    digest = hashlib.sha256('\n'.join(catalogue.METRICS).encode())
    for index in indices:
      digest.update(
          f'\n{source.stamp(index)}'.encode(errors='backslashreplace'))
    if self.paired is not None:
      digest.update(self.paired.stamp(indices).encode())
    return digest.hexdigest()


def judged(options: EvaluateOptions) -> Judged:
  """What the options name.

  Raises:
    UserError: there is no such run, or it cannot be read.
  """
  if options.reference is not None:
    return Judged(name=f'reference {options.reference}', variables={},
                  answer=answers.of_reference(options.reference))
  if options.outputs is not None:
    return Judged(name=f'pictures of {options.outputs}', variables={},
                  answer=answers.of_pictures,
                  outputs=pathlib.Path(options.outputs).expanduser())
  assert options.checkpoint is not None
  colorizer, variables, size = saved.load(
      pathlib.Path(options.checkpoint).expanduser())
  colorizer = colorizer.ask(**options.ask)
  return Judged(
      name=f'checkpoint {options.checkpoint}', variables=variables,
      colorizer=colorizer, network_size=size,
      answer=answers.of_colorizer(
          colorizer, image_size=size, num_proposals=options.num_proposals,
          num_samples=options.num_samples, num_draws=options.num_draws,
          seed=options.seed))


def photographs(options: EvaluateOptions, judged: Judged) -> Photographs:
  """The photographs by the protocol, and their pictures."""
  chosen = _protocol(options, judged)
  names = listing.read_names(options.names) if options.names else None
  source = sources.parse(
      options.data, train=False, data_dir=options.photos.data_dir)
  if names is not None or chosen.count is not None:
    source = listing.choose(source, count=chosen.count, names=names)
  photos = Screen(source, min_chroma=options.photos.min_chroma,
                  on_bad_image=options.photos.on_bad_image)
  paired = judged.outputs and pairing.pair(photos, judged.outputs)
  return Photographs(photos=paired.photos if paired else photos,
                     protocol=chosen, options=options.photos,
                     paired=paired or None)


def _protocol(options: EvaluateOptions, judged: Judged) -> protocol.Protocol:
  if options.protocol == protocol.FOLDER:
    return protocol.folder(
        options.image_size or judged.network_size or _DEFAULT_SIZE,
        options.fit or options.photos.fit)
  chosen = protocol.PROTOCOLS[options.protocol]
  for name in ('image_size', 'fit'):
    given = getattr(options, name)
    if given is not None and given != getattr(chosen, name):
      raise UserError(
          f'{name}={given}: protocol={chosen.name} sets it to '
          f'{getattr(chosen, name)}; leave {name} out, or take protocol=folder')
  if chosen.needs_names and not options.names:
    raise UserError(f'protocol={chosen.name} needs names, a file: '
                    f'{chosen.photographs}')
  return chosen


def networks(options: EvaluateOptions) -> dict[str, Any]:
  """Variables of the networks whose files are given, by name.

  Raises:
    UserError: a file cannot be read or holds another network.
  """
  loaded: dict[str, Any] = {}
  for net in ('alex', 'vgg'):
    files = getattr(options, f'lpips_{net}')
    if files:
      if len(files) != 2:
        raise UserError(f'lpips_{net} takes two files, the classifier and the '
                        f'heads; given: {len(files)}')
      loaded[f'lpips_{net}'] = lpips.build(net).load(
          *(pathlib.Path(file).expanduser() for file in files))
  for variant in inception_features.VARIANTS:
    file = (options.inception_fid if variant == 'pytorch_fid'
            else options.inception_torchvision)
    if file:
      loaded[f'inception_{variant}'] = inception_features.build(variant).load(
          pathlib.Path(file).expanduser())
  return loaded
