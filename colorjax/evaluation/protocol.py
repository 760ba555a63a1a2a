"""Which photographs are measured, in which order, cut how: named and versioned.

Figures compare where the protocol AND the pixels are the same. A protocol that
changes gets a new version, never a new meaning.

Photographs are read in the order of their file names and resized by Pillow's
antialiased bicubic filter; published scripts differ in that (bilinear without
antialias is common), so that even a named protocol gives the figures of a paper
only nearly. The reference of figures of sets (FID, KID) are the photographs
themselves, as DDColor and CT2 have it; ColTran and Palette compare with other
photographs, which gives larger figures (14.7 for the truth itself).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from colorjax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Protocol:
  """How photographs are chosen and cut.

  Attributes:
    name: by which it is called.
    version: rises with every change of meaning.
    photographs: which ones, for people.
    count: how many, from the first in the order of file names; None for all.
    needs_names: whether a list of file names says which.
    image_size: side of the squares that are judged, in pixels.
    fit: 'crop' for the center, 'squash' for all of it.
    source: who measures so.
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
        'the validation part of ImageNet 2012',
        source='CT2 (Weng et al. 2022), DDColor (Kang et al. 2023)'),
    Protocol(
        name='imagenet_val50k', version=1, count=50000, image_size=256,
        fit='squash', photographs='the 50,000 photographs of the validation '
        'part of ImageNet 2012',
        source='ColorFormer (Ji et al. 2022), DDColor (Kang et al. 2023)'),
    Protocol(
        name='imagenet_ctest10k', version=1, count=10000, needs_names=True,
        image_size=256, fit='squash', photographs='10,000 photographs of the '
        'validation part of ImageNet 2012, by the list of Larsson et al.',
        source='Larsson et al. 2016, Zhang et al. 2016'),
    Protocol(
        name='coco_stuff_val5k', version=1, count=5000, image_size=256,
        fit='squash', photographs='the 5,000 photographs of COCO val2017',
        source='Su et al. 2020, DDColor (Kang et al. 2023)'),
)

PROTOCOLS: Mapping[str, Protocol] = {p.name: p for p in _PUBLISHED}
"""The published protocols by name; `folder` makes others."""

FOLDER = 'folder'
"""Name of the protocol of one's own photographs."""


def folder(image_size: int, fit: Literal['crop', 'squash']) -> Protocol:
  """All photographs that are named, cut as one likes."""
  return Protocol(
      name=FOLDER, version=1, image_size=image_size, fit=fit,
      photographs='all photographs of the folder or data set')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
  """What a result says of the way it was obtained.

  Attributes:
    protocol: the protocol.
    data: the photographs, as the argument named them.
    photographs: their names, in order.
    pixels: SHA-256 of the squares that were judged, in order.
    num_proposals: K.
    num_samples: n.
    num_draws: draws for calibration.
    seed: of samples and draws.
    density: what bits per dimension speak of: resolution, exact or a bound; ''
      without a density.
    left_out: photographs that could not be read or were asked to be left out,
      a line each.
    num_grey: photographs among those judged that are grey by nature.
    near_duplicates: test photographs that a training set holds too, a line
      each; None where no training set was named.
    drops_near_duplicates: whether these are not among `photographs`.
    judged: what was judged: a checkpoint, a folder of pictures, a reference.
    weights: of a checkpoint, SHA-256; '' for pictures.
    networks: SHA-256 of the weights of each network that metrics used, by name.
    warnings: what makes the figures doubtful, a line each.
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
  warnings: tuple[str, ...] = ()

  def as_json(self) -> dict[str, Any]:
    """JSON values; `from_json` reads them back."""
    return dataclasses.asdict(self)

  @classmethod
  def from_json(cls, values: Mapping[str, Any], path: Any) -> 'Record':
    """The record of JSON values; UserError names the file they came from."""
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
          f'{path} is no record of an evaluation by this version: {error}'
      ) from error


def differences(a: Record, b: Record) -> list[str]:
  """In what two results differ that forbids to put them in one table.

  Returns:
    A few words for each difference; none where they compare.
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
  for name in ('num_proposals', 'num_samples', 'num_draws'):
    one, other = getattr(a, name), getattr(b, name)
    if one != other:
      found.append(f'{name} {one} and {other}')
  found += [f'other weights of {name}' for name in a.networks
            if b.networks.get(name, a.networks[name]) != a.networks[name]]
  return found
