"""Copies EXIF entries to new files as bytes, and finds the pages of TIFFs.

An EXIF block is a small TIFF: directories of entries (tag, type, count, value)
in either byte order (Exif 2.32, 4.6.2; TIFF 6.0, section 2). Values are not
decoded, so that a name in UTF-8, a maker note, or a number that a program has
written as text is copied unchanged. A damaged entry is left out without
affecting the others.
"""

import dataclasses
import struct
from collections.abc import Iterator, Mapping

PREFIX = b'Exif\0\0'
"""The bytes before the block in JPEG files."""

ORIENTATION = 274
_EXIF, _GPS = 34665, 34853
_NEW_SUBFILE_TYPE, _SUBFILE_TYPE, _SUB_IFDS = 254, 255, 330

# Entries that describe the shot and not the layout of the file:
# DocumentName, ImageDescription, Make, Model, XResolution, YResolution,
# ResolutionUnit, Software, DateTime, Artist, HostComputer, Rating,
# RatingPercent, Copyright, XPTitle, XPComment, XPAuthor, XPKeywords, XPSubject.
_KEPT = (269, 270, 271, 272, 282, 283, 296, 305, 306, 315, 316, 18246, 18249,
         33432, 40091, 40092, 40093, 40094, 40095)
# Entries that describe the old pixels:
# ColorSpace, PixelXDimension, PixelYDimension, Interoperability.
_STALE = (40961, 40962, 40963, 40965)

# Type and count that a resolution must have in a TIFF, since readers of TIFFs
# compute with it.
_RESOLUTION = {282: (5, 1), 283: (5, 1), 296: (3, 1)}

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4,
          12: 8, 13: 4, 16: 8, 17: 8, 18: 8, 129: 1}
_MAX_DIRECTORIES = 10_000


@dataclasses.dataclass(frozen=True)
class Entry:
  """One entry of a directory.

  Attributes:
    type: 2 for ASCII, 3 for SHORT, 5 for RATIONAL, 7 for UNDEFINED, ...
    count: number of values.
    value: the bytes of the values, in the byte order of the block.
  """
  type: int
  count: int
  value: bytes


Directory = dict[int, Entry]


@dataclasses.dataclass(frozen=True)
class Block:
  """An EXIF block or a whole TIFF; both have the same structure.

  Attributes:
    data: the bytes.
    order: byte order, '<' or '>'.
    is_big: whether it is a BigTIFF, with 64-bit offsets.
  """
  data: bytes
  order: str
  is_big: bool

  def number(self, layout: str, at: int) -> int:
    """Reads a number at an offset; raises struct.error past the end."""
    return struct.unpack_from(self.order + layout, self.data, at)[0]

  def first(self) -> int:
    """Offset of the first directory."""
    return self.number('Q', 8) if self.is_big else self.number('I', 4)

  def directory(self, at: int) -> tuple[Directory, int]:
    """Reads the valid entries of a directory.

    Args:
      at: offset of the directory.

    Returns:
      The entries by tag, without those that have an unknown type or a value
      outside the block; and the offset of the next directory, 0 if there is
      none.
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
    """Yields the offset and the entries of each directory, each once."""
    seen: set[int] = set()
    at = self.first()
    while at and at not in seen and len(seen) < _MAX_DIRECTORIES:
      seen.add(at)
      entries, following = self.directory(at)
      yield at, entries
      at = following

  def numbers(self, entry: Entry | None) -> list[int]:
    """The integers of an entry; [] if it holds no integers."""
    layout = {1: 'B', 3: 'H', 4: 'I', 13: 'I', 16: 'Q', 18: 'Q'}.get(
        entry.type if entry else 0)
    if entry is None or layout is None:
      return []
    return list(struct.unpack(f'{self.order}{entry.count}{layout}',
                              entry.value))


def parse_block(data: bytes) -> Block | None:
  """Parses a block with or without PREFIX; returns None if it is invalid."""
  data = data.removeprefix(PREFIX)
  order = {b'II': '<', b'MM': '>'}.get(data[:2])
  if order is None or len(data) < 8:
    return None
  version = struct.unpack_from(order + 'H', data, 2)[0]
  if version not in (42, 43) or (version == 43 and len(data) < 16):
    return None
  return Block(data, order, version == 43)


def orientation(source: Block, directory: Mapping[int, Entry]) -> int | None:
  """The orientation of the picture, 1 to 8; None if it is not given."""
  numbers = source.numbers(directory.get(ORIENTATION))
  return numbers[0] if numbers and 1 <= numbers[0] <= 8 else None


def cleaned(source: Block, directory: Mapping[int, Entry]) -> bytes | None:
  """Makes an EXIF block without entries that describe the old pixels.

  Orientation, layout, sizes and the thumbnail are removed.

  Args:
    source: the block that holds the directory.
    directory: the entries of the picture.

  Returns:
    PREFIX and the new block, in the byte order of the source; None if no
    entries are left.
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
  return _make_block(main, below, source.order)


def shorten(exif: bytes, max_bytes: int) -> bytes:
  """Removes the longest entries of a block until it is short enough.

  Args:
    exif: a block that `cleaned` returned.
    max_bytes: maximum length of the result.

  Returns:
    The block, or b'' if no entries are left.
  """
  source = parse_block(exif)
  while len(exif) > max_bytes and source is not None:
    main, below = _all_entries(source)
    lengths = [(len(entry.value), pointer, tag)
               for pointer, entries in ((0, main), *below.items())
               for tag, entry in entries.items()]
    if not lengths:
      return b''
    _, pointer, tag = max(lengths)
    (below[pointer] if pointer else main).pop(tag)
    below = {pointer: entries for pointer, entries in below.items() if entries}
    exif = _make_block(main, below, source.order)
    source = parse_block(exif)
  return exif


def insert_into_tiff(tiff: bytes, exif: bytes) -> bytes:
  """Adds the entries of an EXIF block to a TIFF of one page.

  Args:
    tiff: the file, in the byte order of the block; not a BigTIFF.
    exif: a block that `cleaned` returned.

  Returns:
    The new file.

  Raises:
    ValueError: the byte orders differ, or the file is a BigTIFF.
  """
  target, source = parse_block(tiff), parse_block(exif)
  assert target is not None
  assert source is not None
  if target.is_big or target.order != source.order:
    raise ValueError('the TIFF must have the byte order of the EXIF block and '
                     'must not be a BigTIFF')
  added, below = _all_entries(source)
  main = target.directory(target.first())[0]
  main.update({
      tag: entry for tag, entry in added.items()
      if _RESOLUTION.get(tag, (entry.type, entry.count))
      == (entry.type, entry.count)})
  tiff += b'\0' * (len(tiff) % 2)
  body, start = _pack(main, below, source.order, len(tiff))
  return tiff[:4] + struct.pack(target.order + 'I', start) + tiff[8:] + body


def _all_entries(source: Block) -> tuple[Directory, dict[int, Directory]]:
  """The entries of a block that `cleaned` returned.

  Returns:
    The entries of the main directory without pointers, and those of the EXIF
    and GPS directories by their pointer's tag.
  """
  main = source.directory(source.first())[0]
  below = {pointer: source.directory(source.numbers(main.pop(pointer))[0])[0]
           for pointer in (_EXIF, _GPS) if pointer in main}
  return main, below


def _make_block(main: Directory, below: Mapping[int, Directory], order: str
                ) -> bytes:
  """PREFIX and an EXIF block of some entries; arguments as in `_pack`."""
  head = b'II*\0' if order == '<' else b'MM\0*'
  body, start = _pack(main, below, order, 8)
  return PREFIX + head + struct.pack(order + 'I', start) + body


def _pack(main: Directory, below: Mapping[int, Directory], order: str,
          start: int) -> tuple[bytes, int]:
  """Encodes directories, to be stored at the offset `start`.

  Args:
    main: the entries of the main directory.
    below: the entries of the EXIF and GPS directories by their pointer's tag.
    order: byte order, '<' or '>'.
    start: offset of the first byte.

  Returns:
    The bytes, and the offset of the main directory.
  """
  body = b''
  main = dict(main)
  for pointer, entries in below.items():
    packed, at = _pack_directory(entries, order, start + len(body))
    body += packed
    main[pointer] = Entry(4, 1, struct.pack(order + 'I', at))
  packed, at = _pack_directory(main, order, start + len(body))
  return body + packed, at


def _pack_directory(entries: Directory, order: str, start: int
                    ) -> tuple[bytes, int]:
  """Encodes a directory followed by its values; returns it and its offset."""
  table = struct.pack(order + 'H', len(entries))
  values = b''
  values_at = start + 2 + 12 * len(entries) + 4
  for tag, entry in sorted(entries.items()):
    table += struct.pack(order + 'HHI', tag, entry.type, entry.count)
    if len(entry.value) <= 4:
      table += entry.value.ljust(4, b'\0')
    else:
      table += struct.pack(order + 'I', values_at + len(values))
      values += entry.value + b'\0' * (len(entry.value) % 2)
  return table + bytes(4) + values, start


@dataclasses.dataclass(frozen=True)
class Page:
  """The page of a TIFF that holds the photograph.

  Attributes:
    data: the TIFF, changed so that this page is the first.
    directory: the entries of the page, and entries that only the first page
      has.
    pictures: number of pages that are photographs, without reduced copies and
      masks.
  """
  data: bytes
  directory: Directory
  pictures: int


def main_page(source: Block) -> Page:
  """Finds the first page of a TIFF that is not a reduced copy of another.

  Pages below other pages (SubIFDs) are included, since some programs store a
  thumbnail first and the photograph below it. If all pages are reduced copies,
  the largest one is used.

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
  # In the new tag, bit 0 is a reduced copy and bit 2 a mask. In the old tag, 2
  # is a reduced copy.
  return not (new and new[0] & 5) and not (old and old[0] == 2)


def _area(source: Block, entries: Directory) -> int:
  sides = [source.numbers(entries.get(tag)) or [0] for tag in (256, 257)]
  return sides[0][0] * sides[1][0]
