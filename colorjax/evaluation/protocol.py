"""Evaluation protocols: which photographs, in which order, how made square.

Results are comparable if both the protocol and the pixels are the same. A
protocol that changes gets a new version number.

Photographs are read in the order of their file names and resized with Pillow's
antialiased bicubic filter. Published scripts often use another filter, such as
bilinear without antialiasing, so a named protocol reproduces the numbers of a
paper only approximately. The reference set of FID and KID is the set of
evaluated photographs, as in DDColor and CT2. ColTran and Palette use other
photographs as the reference set, which gives larger values (an FID of 14.7 for
the original photographs).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from colorjax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Protocol:
  """How photographs are selected and made square.

  Attributes:
    name: name of the protocol.
    version: increases with every change of the protocol.
    photographs: describes the photographs, for reports.
    count: number of photographs, the first in the order of file names; None
      for all.
    needs_names: whether a list of file names selects the photographs.
    image_size: side of the evaluated squares, in pixels.
    fit: 'crop' for the central square, 'squash' to resize the whole photograph
      to a square.
    source: publications that use the protocol.
  """
  name: str
  version: int
  photographs: str
  count: int | None = None
  needs_names: bool = False
  image_size: int
  fit: Literal['crop', 'squash']
  source: str = ''


_PUBLISHED = (
    Protocol(
        name='imagenet_val5k', version=1, count=5000, image_size=256,
        fit='crop', photographs='the first 5,000 of the 50,000 photographs of '
        'the validation set of ImageNet 2012',
        source='CT2 (Weng et al. 2022), DDColor (Kang et al. 2023)'),
    Protocol(
        name='imagenet_val50k', version=1, count=50000, image_size=256,
        fit='squash', photographs='the 50,000 photographs of the validation '
        'set of ImageNet 2012',
        source='ColorFormer (Ji et al. 2022), DDColor (Kang et al. 2023)'),
    Protocol(
        name='imagenet_ctest10k', version=1, count=10000, needs_names=True,
        image_size=256, fit='squash', photographs='10,000 photographs of the '
        'validation set of ImageNet 2012 in the list of Larsson et al.',
        source='Larsson et al. 2016, Zhang et al. 2016'),
    Protocol(
        name='coco_stuff_val5k', version=1, count=5000, image_size=256,
        fit='squash', photographs='the 5,000 photographs of COCO val2017',
        source='Su et al. 2020, DDColor (Kang et al. 2023)'),
)

PROTOCOLS: Mapping[str, Protocol] = {p.name: p for p in _PUBLISHED}
"""The published protocols by name; `folder` makes others."""

FOLDER = 'folder'
"""Name of the protocol for a user's own photographs."""


def folder(image_size: int, fit: Literal['crop', 'squash']) -> Protocol:
  """The protocol for all photographs of a folder or data set.

  Args:
    image_size: side of the evaluated squares, in pixels.
    fit: as in `Protocol`.
  """
  return Protocol(
      name=FOLDER, version=1, image_size=image_size, fit=fit,
      photographs='all photographs of the folder or data set')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
  """How a result was obtained.

  Attributes:
    protocol: the protocol.
    data: the data set, as the user named it.
    photographs: names of the evaluated photographs, in order.
    pixels: SHA-256 of the evaluated squares, in order.
    num_proposals: K.
    num_samples: n.
    num_draws: number of draws for calibration.
    seed: seed of samples and draws.
    density: resolution and kind of the density behind bits per dimension, as
      '64 x 64, exact'; '' without a density.
    left_out: a line for each photograph that could not be read or that the
      user asked to leave out.
    num_grey: number of evaluated photographs that have no color themselves.
    near_duplicates: a line for each test photograph that is also in the
      training set; None if no training set was given.
    drops_near_duplicates: whether `photographs` is without near-duplicates.
    judged: what was evaluated: a checkpoint, a folder of pictures or a
      reference.
    weights: SHA-256 of the weights of a checkpoint; '' for pictures.
    film: the imitated scans that were colored in place of the photographs, as
      'plate, version 1'; '' for the photographs themselves, as in records of
      earlier versions.
    networks: SHA-256 of the weights of each network that metrics used, by name.
    warnings: a line for each reason to doubt the result.
  """
  protocol: Protocol
  data: str
  photographs: tuple[str, ...]
  pixels: str
  num_proposals: int
  num_samples: int
  num_draws: int
  seed: int
  density: str
  left_out: tuple[str, ...]
  num_grey: int
  near_duplicates: tuple[str, ...] | None
  drops_near_duplicates: bool
  judged: str
  weights: str
  networks: Mapping[str, str]
  film: str = ''
  warnings: tuple[str, ...] = ()

  def as_json(self) -> dict[str, Any]:
    """The record as JSON values, which `from_json` reads."""
    return dataclasses.asdict(self)

  @classmethod
  def from_json(cls, values: Mapping[str, Any], path: Any) -> 'Record':
    """Reads the record from JSON values.

    Args:
      values: what `as_json` returned.
      path: file of the values, for errors.

    Raises:
      UserError: a field is missing, unknown or of the wrong type.
    """
    try:
      fields = dict(values)
      fields['protocol'] = Protocol(**fields['protocol'])
      # Records of earlier versions have no warnings.
      fields.setdefault('warnings', ())
      for name in ('photographs', 'left_out', 'near_duplicates', 'warnings'):
        if fields[name] is not None or name != 'near_duplicates':
          fields[name] = tuple(fields[name])
      return cls(**fields)
    except (TypeError, KeyError) as error:
      raise UserError(
          f'{path} is not a record of an evaluation of this version: {error}; '
          'evaluate again in an empty work directory') from error


def differences(a: Record, b: Record) -> list[str]:
  """Differences that make two results not comparable.

  Returns:
    A few words for each difference; empty if the results are comparable.
  """
  found = []
  for name in ('name', 'version', 'image_size', 'fit'):
    one, other = getattr(a.protocol, name), getattr(b.protocol, name)
    if one != other:
      found.append(f'protocol {name} {one} and {other}')
  if len(a.photographs) != len(b.photographs):
    found.append(f'{len(a.photographs)} and {len(b.photographs)} photographs')
  elif a.pixels != b.pixels:
    found.append('other pixels')
  if a.film != b.film:
    found.append(f'film {a.film or "none"} and {b.film or "none"}')
  elif a.film and a.seed != b.seed:
    found.append(f'film with seed {a.seed} and {b.seed}')
  for name in ('num_proposals', 'num_samples', 'num_draws'):
    one, other = getattr(a, name), getattr(b, name)
    if one != other:
      found.append(f'{name} {one} and {other}')
  found += [f'other weights of {name}' for name in a.networks
            if b.networks.get(name, a.networks[name]) != a.networks[name]]
  return found
