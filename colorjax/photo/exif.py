"""EXIF, entry by entry: what still holds for new pixels, as bytes.

An EXIF block is a small TIFF: directories of entries (tag, type, count, value)
in either byte order (Exif 2.32, 4.6.2; TIFF 6.0, section 2). Values are never
decoded here, so that a name in UTF-8, a maker's note, or a number that a
program has written as text comes out as it came in. Every entry stands alone:
one that is damaged is left out, and takes no other with it.
"""

import dataclasses
import struct
from collections.abc import Iterator, Mapping

PREFIX = b'Exif\0\0'
"""What stands before the block in jpeg files."""

ORIENTATION = 274
_EXIF, _GPS = 34665, 34853
_NEW_SUBFILE_TYPE, _SUBFILE_TYPE, _SUB_IFDS = 254, 255, 330

# What describes the shot, and not the layout of the file that it came in:
# DocumentName, ImageDescription, Make, Model, XResolution, YResolution,
# ResolutionUnit, Software, DateTime, Artist, HostComputer, Rating,
# RatingPercent, Copyright, XPTitle, XPComment, XPAuthor, XPKeywords, XPSubject.
_KEPT = (269, 270, 271, 272, 282, 283, 296, 305, 306, 315, 316, 18246, 18249,
         33432, 40091, 40092, 40093, 40094, 40095)
# ColorSpace, PixelXDimension, PixelYDimension, Interoperability: what speaks of
# the old pixels.
_STALE = (40961, 40962, 40963, 40965)

# Readers of a tiff compute with its resolution: there it has to be a number.
_RESOLUTION = {282: (5, 1), 283: (5, 1), 296: (3, 1)}

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4,
          12: 8, 13: 4, 16: 8, 17: 8, 18: 8, 129: 1}
_MOST_DIRECTORIES = 10_000


@dataclasses.dataclass(frozen=True)
class Entry:
  """One entry of a directory.

  Attributes:
    type: 2 for ASCII, 3 for SHORT, 5 for RATIONAL, 7 for UNDEFINED, ...
    count: number of values.
    value: their bytes, in the byte order of the block.
  """
  type: int
  count: int
  value: bytes


Directory = dict[int, Entry]


@dataclasses.dataclass(frozen=True)
class Block:
  """Bytes that begin like a TIFF: an EXIF block or a whole TIFF.

  Attributes:
    data: the bytes.
    order: '<' or '>'.
    is_big: whether it is a BigTIFF, with 64-bit offsets.
  """
  data: bytes
  order: str
  is_big: bool

  def number(self, layout: str, at: int) -> int:
    """One number at an offset; struct.error past the end."""
    return struct.unpack_from(self.order + layout, self.data, at)[0]

  def first(self) -> int:
    """Offset of the first directory."""
    return self.number('Q', 8) if self.is_big else self.number('I', 4)

  def directory(self, at: int) -> tuple[Directory, int]:
    """The sound entries of a directory, and the offset of the next one.

    Args:
      at: its offset.

    Returns:
      The entries by tag; those whose type is unknown or whose value lies
      outside are left out. The offset is 0 where there is no next one.
    """
    head, step, room = ('Q', 20, 8) if self.is_big else ('H', 12, 4)
    entries: Directory = {}
    try:
      count = self.number(head, at)
    except struct.error:
      return entries, 0
    start = at + struct.calcsize('<' + head)
    for place in range(start, min(start + count * step, len(self.data)), step):
      try:
        tag, kind = struct.unpack_from(self.order + 'HH', self.data, place)
        number = self.number('Q' if self.is_big else 'I', place + 4)
        size = _SIZES[kind] * number
        where = place + step - room
        if size > room:
          where = self.number('Q' if self.is_big else 'I', where)
      except (struct.error, KeyError):
        continue
      if where + size <= len(self.data) and tag not in entries:
        entries[tag] = Entry(kind, number, self.data[where:where + size])
    try:
      following = self.number('Q' if self.is_big else 'I', start + count * step)
    except struct.error:
      following = 0
    return entries, following

  def chain(self) -> Iterator[tuple[int, Directory]]:
    """The directories one after the other, each once, with their offsets."""
    seen: set[int] = set()
    at = self.first()
    while at and at not in seen and len(seen) < _MOST_DIRECTORIES:
      seen.add(at)
      entries, following = self.directory(at)
      yield at, entries
      at = following

  def numbers(self, entry: Entry | None) -> list[int]:
    """The whole numbers of an entry; [] where it has none."""
    layout = {1: 'B', 3: 'H', 4: 'I', 13: 'I', 16: 'Q', 18: 'Q'}.get(
        entry.type if entry else 0)
    if entry is None or layout is None:
      return []
    return list(struct.unpack(f'{self.order}{entry.count}{layout}',
                              entry.value))


def block(data: bytes) -> Block | None:
  """The block in some bytes, with or without PREFIX; None if it is none."""
  data = data.removeprefix(PREFIX)
  order = {b'II': '<', b'MM': '>'}.get(data[:2])
  if order is None or len(data) < 8:
    return None
  version = struct.unpack_from(order + 'H', data, 2)[0]
  if version not in (42, 43) or (version == 43 and len(data) < 16):
    return None
  return Block(data, order, version == 43)


def orientation(source: Block, directory: Mapping[int, Entry]) -> int | None:
  """How the picture has to be turned, 1 to 8; None if it is not said."""
  said = source.numbers(directory.get(ORIENTATION))
  return said[0] if said and 1 <= said[0] <= 8 else None


def kept(source: Block, directory: Mapping[int, Entry]) -> bytes | None:
  """An EXIF block of what still holds for new pixels.

  Orientation, layout, sizes and the thumbnail are left out.

  Args:
    source: where the directory comes from.
    directory: the entries of the picture.

  Returns:
    PREFIX and the block, in the byte order of the source; None if nothing is
    left.
  """
  main = {tag: directory[tag] for tag in _KEPT if tag in directory}
  below: dict[int, Directory] = {}
  for pointer in (_EXIF, _GPS):
    for at in source.numbers(directory.get(pointer))[:1]:
      found = {tag: entry for tag, entry in source.directory(at)[0].items()
               if tag not in _STALE}
      if found:
        below[pointer] = found
  if not main and not below:
    return None
  head = b'II*\0' if source.order == '<' else b'MM\0*'
  body, start = _packed(main, below, source.order, 8)
  return PREFIX + head + struct.pack(source.order + 'I', start) + body


def shortened(exif: bytes, most: int) -> bytes:
  """A block of at most so many bytes; the longest entries are left out."""
  source = block(exif)
  while len(exif) > most and source is not None:
    main = source.directory(source.first())[0]
    places = [(len(entry.value), pointer, tag)
              for pointer, entries in ((0, main), *_below(source, main).items())
              for tag, entry in entries.items()
              if tag not in (_EXIF, _GPS)]
    if not places:
      return b''
    _, pointer, tag = max(places)
    below = _below(source, main)
    (below[pointer] if pointer else main).pop(tag)
    main = {tag: entry for tag, entry in main.items()
            if tag not in (_EXIF, _GPS)}
    below = {pointer: entries for pointer, entries in below.items() if entries}
    body, start = _packed(main, below, source.order, 8)
    exif = PREFIX + source.data[:4] + struct.pack(
        source.order + 'I', start) + body
    source = block(exif)
  return exif


def into_tiff(tiff: bytes, exif: bytes) -> bytes:
  """A tiff of one page with the entries of an EXIF block.

  Args:
    tiff: the file, in the byte order of the block, no BigTIFF.
    exif: what `kept` returned.

  Returns:
    The file.
  """
  target, source = block(tiff), block(exif)
  assert target is not None
  assert source is not None
  if target.is_big or target.order != source.order:
    raise ValueError('the tiff and the EXIF block differ in byte order')
  given = source.directory(source.first())[0]
  main = target.directory(target.first())[0]
  main.update({
      tag: entry for tag, entry in given.items()
      if tag not in (_EXIF, _GPS) and _RESOLUTION.get(
          tag, (entry.type, entry.count)) == (entry.type, entry.count)})
  tiff += b'\0' * (len(tiff) % 2)
  body, start = _packed(main, _below(source, given), source.order, len(tiff))
  return tiff[:4] + struct.pack(target.order + 'I', start) + tiff[8:] + body


def _below(source: Block, main: Mapping[int, Entry]) -> dict[int, Directory]:
  """The EXIF and GPS directories of a block that `kept` has made."""
  return {pointer: source.directory(source.numbers(main[pointer])[0])[0]
          for pointer in (_EXIF, _GPS) if pointer in main}


def _packed(main: Directory, below: Mapping[int, Directory], order: str,
            start: int) -> tuple[bytes, int]:
  """Directories as bytes that are to lie at an offset.

  Returns:
    The bytes, and the offset of the main directory.
  """
  body = b''
  main = dict(main)
  for pointer, entries in below.items():
    packed, at = _directory(entries, order, start + len(body))
    body += packed
    main[pointer] = Entry(4, 1, struct.pack(order + 'I', at))
  packed, at = _directory(main, order, start + len(body))
  return body + packed, at


def _directory(entries: Directory, order: str, start: int
               ) -> tuple[bytes, int]:
  """A directory with its values behind it, and its offset."""
  table = struct.pack(order + 'H', len(entries))
  values = b''
  behind = start + 2 + 12 * len(entries) + 4
  for tag, entry in sorted(entries.items()):
    table += struct.pack(order + 'HHI', tag, entry.type, entry.count)
    if len(entry.value) <= 4:
      table += entry.value.ljust(4, b'\0')
    else:
      table += struct.pack(order + 'I', behind + len(values))
      values += entry.value + b'\0' * (len(entry.value) % 2)
  return table + bytes(4) + values, start


# The pages of a TIFF.

@dataclasses.dataclass(frozen=True)
class Page:
  """The page of a TIFF that is the photograph.

  Attributes:
    data: a TIFF whose first page it is.
    directory: its entries, and those of the first page that it lacks.
    pictures: how many pages are photographs: no reduced copies, no masks.
  """
  data: bytes
  directory: Directory
  pictures: int


def page(source: Block) -> Page:
  """Finds the first page of a TIFF that is no reduced copy of another.

  Pages below other pages (SubIFDs) are looked at as well: some programs put a
  thumbnail first and the photograph below it. If all are reduced copies, the
  largest is taken.

  Args:
    source: the file.

  Returns:
    The page.
  """
  first: Directory | None = None
  pages: list[tuple[int, Directory]] = []
  for at, entries in source.chain():
    first = entries if first is None else first
    pages.append((at, entries))
    pages += [(below, source.directory(below)[0])
              for below in source.numbers(entries.get(_SUB_IFDS))]
  full = [(at, entries) for at, entries in pages
          if 256 in entries and _is_full(source, entries)]
  if full:
    at, entries = full[0]
  elif pages:
    at, entries = max(pages, key=lambda one: _area(source, one[1]))
  else:
    return Page(source.data, {}, 1)
  data = source.data
  if at != source.first():
    data = (data[:8] + struct.pack(source.order + 'Q', at) + data[16:]
            if source.is_big else
            data[:4] + struct.pack(source.order + 'I', at) + data[8:])
  return Page(data, (first or {}) | entries, max(1, len(full)))


def _is_full(source: Block, entries: Directory) -> bool:
  new = source.numbers(entries.get(_NEW_SUBFILE_TYPE))
  old = source.numbers(entries.get(_SUBFILE_TYPE))
  # Bit 0: a reduced copy; bit 2: a mask. The older tag has 2 for a copy.
  return not (new and new[0] & 5) and not (old and old[0] == 2)


def _area(source: Block, entries: Directory) -> int:
  sides = [source.numbers(entries.get(tag)) or [0] for tag in (256, 257)]
  return sides[0][0] * sides[1][0]
