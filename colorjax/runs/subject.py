"""What an evaluation measures: its subject, photographs and networks.

All of them are opened before anything is written, so that a wrong argument
leaves no files behind.
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
from colorjax.film import held_out
from colorjax.metrics import inception_features, lpips
from colorjax.runs.photographs import PhotoOptions

_DEFAULT_SIZE = 256  # pixels; of a subject that sets no size


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
  """The options of an evaluation.

  Exactly one of `checkpoint`, `outputs` and `reference` selects the subject.

  Attributes:
    checkpoint: the method to measure: work directory of a finished run, or a
      model file.
    replica: number of the replica that is measured, from 0, if that run has
      replicas; None for a run of one model.
    outputs: folder with the colorings of any program, see `pairing`.
    reference: one of `answers.REFERENCES`.
    workdir: directory for the results, from which a stopped evaluation is
      resumed.
    data: the photographs, in the form of `sources.parse`.
    train_data: photographs that the method was trained on, which are searched
      for near-duplicates of the measured ones; None does not search.
    drop_near_duplicates: whether near-duplicates are left out.
    protocol: `protocol.FOLDER`, or a name of `protocol.PROTOCOLS`.
    names: file with the names of the photographs to use; None for all.
    image_size: side of the squares that are measured, in pixels; None for that
      of the protocol, of the method, or 256.
    fit: how photographs become squares; None for that of the protocol, or of
      `photos`.
    photos: how photographs are read.
    batch_size: photographs per batch, over all devices; it changes no metric.
    num_proposals: number K of proposals.
    num_samples: number n of random samples; 0 or at least 2.
    num_draws: number of draws from the distribution, for calibration; 0 or at
      least 2.
    seed: seed of samples and draws, and of imitated scans.
    film: name of imitated scans that are colored in place of the photographs
      (`film.held_out.IMITATIONS`); None for the photographs themselves.
    ask: options of prediction, see `Colorizer.options`.
    report_photos: number of photographs in each sheet of the report.
    lpips_alex: two files, the classifier and the heads, for LPIPS; None leaves
      this metric out.
    lpips_vgg: the same for VGG-16.
    inception_fid: file of pytorch-fid's network, for FID and KID.
    inception_torchvision: file of torchvision's network, for FID and KID.
  """
  checkpoint: str | None = None
  replica: int | None = None
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
  film: str | None = None
  ask: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  report_photos: int = 10
  lpips_alex: Sequence[str] | None = None
  lpips_vgg: Sequence[str] | None = None
  inception_fid: str | None = None
  inception_torchvision: str | None = None

  def __post_init__(self):
    """Checks the options.

    Raises:
      UserError: an option is wrong, or two contradict each other.
    """
    given = [name for name in ('checkpoint', 'outputs', 'reference')
             if getattr(self, name) is not None]
    if len(given) != 1:
      raise UserError('give exactly one of checkpoint, outputs and reference; '
                      f'given: {", ".join(given) or "none"}')
    for name in ('num_samples', 'num_draws'):
      if getattr(self, name) == 1:
        raise UserError(f'{name}=1: give 0, or at least 2 to measure spread')
    if self.replica is not None and self.checkpoint is None:
      raise UserError(f'replica={self.replica}: needs a checkpoint')
    if self.protocol not in (protocol.FOLDER, *protocol.PROTOCOLS):
      raise UserError(f'protocol={self.protocol}: choose one of '
                      f'{", ".join((protocol.FOLDER, *protocol.PROTOCOLS))}')
    if self.film is not None:
      if self.film not in held_out.IMITATIONS:
        raise UserError(f'film={self.film}: choose one of '
                        f'{", ".join(held_out.IMITATIONS)}')
      if self.outputs is not None:
        raise UserError(f'film={self.film}: outputs={self.outputs} are '
                        'colorings of other pictures than its scans; use '
                        'checkpoint or reference')
    if self.drop_near_duplicates and self.train_data is None:
      raise UserError('drop_near_duplicates needs train_data, the photographs '
                      'that the method was trained on')

  @property
  def directory(self) -> pathlib.Path:
    """`workdir` as a path, with `~` replaced by the home directory."""
    return pathlib.Path(self.workdir).expanduser()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subject:
  """What an evaluation measures, and how its colorings are obtained.

  Attributes:
    name: name for the report.
    answer: computes the colorings, see `evaluation.answers`.
    variables: first argument of `answer`.
    colorizer: the method; None for pictures and references.
    network_size: side of the square that the method sees, in pixels.
    outputs: folder of pictures; None for a method or a reference.
  """
  name: str
  answer: answers.AnswerFn
  variables: Variables
  colorizer: Colorizer | None = None
  network_size: int | None = None
  outputs: pathlib.Path | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Photographs:
  """The photographs of an evaluation, cut by its protocol.

  Attributes:
    photos: the photographs.
    protocol: the protocol.
    options: how they are read.
    paired: their colorings by another program, if these are measured.
  """
  photos: Screen
  protocol: protocol.Protocol
  options: PhotoOptions
  paired: pairing.PairedOutputs | None = None

  def batches(self, indices: range | list[int], batch_size: int, *,
              shard: tuple[int, int] = (0, 1)) -> BatchStream:
    """Returns a stream of batches of some photographs; the caller closes it.

    If the subject is pictures of a program, batches have them as 'picture'.

    Args:
      indices: numbers of the photographs in their source.
      batch_size: photographs per batch, over all shards and devices.
      shard: (index, count): which share of each batch to read.
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
    """Hash of everything that the measurements of some photographs depend on.

    These are the photographs, their files, the files of their colorings, and
    the names of all metrics.

    Args:
      indices: numbers of the photographs in their source.
    """
    source = self.photos.source
    digest = hashlib.sha256('\n'.join(catalogue.METRICS).encode())
    for index in indices:
      digest.update(('\n' + ' '.join(source.stamp(index))).encode(
          errors='backslashreplace'))
    if self.paired is not None:
      digest.update(self.paired.stamp(indices).encode())
    return digest.hexdigest()


def open_subject(options: EvaluateOptions) -> Subject:
  """Opens what the options select.

  Raises:
    UserError: there is no such run, or it cannot be read.
  """
  subject = _open_subject(options)
  if options.film is None:
    return subject
  return dataclasses.replace(
      subject, name=f'{subject.name}, on scans ({options.film})',
      answer=answers.of_scans(
          subject.answer, held_out.IMITATIONS[options.film],
          seed=options.seed))


def _open_subject(options: EvaluateOptions) -> Subject:
  """Opens what the options select, for photographs and not for scans."""
  if options.reference is not None:
    return Subject(name=f'reference {options.reference}', variables={},
                   answer=answers.of_reference(options.reference))
  if options.outputs is not None:
    return Subject(name=f'pictures of {options.outputs}', variables={},
                   answer=answers.of_pictures,
                   outputs=pathlib.Path(options.outputs).expanduser())
  assert options.checkpoint is not None
  colorizer, variables, size = saved.load(
      pathlib.Path(options.checkpoint).expanduser(), replica=options.replica)
  colorizer = colorizer.ask(**options.ask)
  return Subject(
      name=f'checkpoint {options.checkpoint}' + (
          '' if options.replica is None else f', replica {options.replica}'),
      variables=variables,
      colorizer=colorizer, network_size=size,
      answer=answers.of_colorizer(
          colorizer, image_size=size, num_proposals=options.num_proposals,
          num_samples=options.num_samples, num_draws=options.num_draws,
          seed=options.seed))


def open_photographs(options: EvaluateOptions, subject: Subject
                     ) -> Photographs:
  """Opens the photographs of the protocol, and their pictures if needed.

  Raises:
    UserError: there are no such photographs, the options do not fit the
      protocol, or pictures and photographs do not match.
  """
  chosen = _protocol(options, subject)
  names = listing.read_names(options.names) if options.names else None
  source = sources.parse(
      options.data, train=False, data_dir=options.photos.data_dir)
  if names is not None or chosen.count is not None:
    source = listing.choose(source, count=chosen.count, names=names)
  photos = Screen(source, min_chroma=options.photos.min_chroma,
                  on_bad_image=options.photos.on_bad_image)
  paired = subject.outputs and pairing.pair(photos, subject.outputs)
  return Photographs(photos=paired.photos if paired else photos,
                     protocol=chosen, options=options.photos,
                     paired=paired or None)


def _protocol(options: EvaluateOptions, subject: Subject
              ) -> protocol.Protocol:
  if options.protocol == protocol.FOLDER:
    return protocol.folder(
        options.image_size or subject.network_size or _DEFAULT_SIZE,
        options.fit or options.photos.fit)
  chosen = protocol.PROTOCOLS[options.protocol]
  for name in ('image_size', 'fit'):
    given = getattr(options, name)
    if given is not None and given != getattr(chosen, name):
      raise UserError(
          f'{name}={given}: protocol={chosen.name} sets it to '
          f'{getattr(chosen, name)}; omit {name}, or use protocol=folder')
  if chosen.needs_names and not options.names:
    raise UserError(f'protocol={chosen.name} needs names=FILE: '
                    f'{chosen.photographs}')
  return chosen


def load_networks(options: EvaluateOptions) -> dict[str, Any]:
  """Loads the networks of metrics whose files are given.

  Returns:
    Variables by the name of the network, see `catalogue.Metric.network`.

  Raises:
    UserError: a file cannot be read or holds another network.
  """
  loaded: dict[str, Any] = {}
  for net in ('alex', 'vgg'):
    files = getattr(options, f'lpips_{net}')
    if files:
      if len(files) != 2:
        raise UserError(f'lpips_{net} needs two files, the classifier and the '
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
