"""Selection of photographs by name, and the hash of their pixels."""

import hashlib

import numpy as np
import pytest

from colorjax.data import sources
from colorjax.errors import UserError
from colorjax.evaluation import listing

LABELS = ['b/two.JPEG', 'a/ten.png', 'c/one.jpg', 'a/two.png', 'b/n.5', 'x[3]']


def a_source(labels=LABELS):
  """Photographs whose pixels are their numbers."""
  return sources.from_arrays(
      [np.full((2, 2, 3), i, np.uint8) for i in range(len(labels))],
      labels=labels, name='photos')


def chosen(source):
  """Labels, and the numbers that the photographs had before."""
  return [(source.label(i), int(source.read(i)[0, 0, 0]))
          for i in range(source.size)]


def test_photographs_are_sorted_by_base_name():
  got = chosen(listing.choose(a_source(), count=4))
  assert got == [('b/n.5', 4), ('c/one.jpg', 2), ('a/ten.png', 1),
                 ('b/two.JPEG', 0)]
  everything = chosen(listing.choose(a_source()))
  assert everything == [*got, ('a/two.png', 3), ('x[3]', 5)]


def test_order_is_plain_text_order_in_any_folders():
  flat = ['9.png', '10.png', 'B.png', 'a.png']
  assert [label for label, _ in chosen(listing.choose(a_source(flat)))] == [
      '10.png', '9.png', 'B.png', 'a.png']
  nested = ['z/10.png', 'y/9.png', 'x/B.png', 'w/a.png']
  assert [label for label, _ in chosen(listing.choose(a_source(nested)))] == (
      nested)


def test_a_list_of_names_gives_the_order():
  names = ['ten', 'val/one.JPEG', 'n.5', 'x[3]', 'b/two']
  got = chosen(listing.choose(a_source(), names=names))
  assert [number for _, number in got] == [1, 2, 4, 5, 0]
  got = chosen(listing.choose(a_source(), names=names, count=2))
  assert [number for _, number in got] == [1, 2]


@pytest.mark.parametrize(('name', 'number'), [
    ('a/two.png', 3), ('a/two', 3), ('a/two.JPEG', 3), ('b/two', 0),
    ('two.JPEG', 0), ('two.png', 3)])
def test_folders_and_then_suffixes_resolve_ambiguous_names(name, number):
  (_, got), = chosen(listing.choose(a_source(), names=[name]))
  assert got == number


def test_folder_names_match_whole():
  source = a_source(['data/x.png', 'a/x.png'])
  (label, _), = chosen(listing.choose(source, names=['a/x']))
  assert label == 'a/x.png'


@pytest.mark.parametrize(('options', 'message'), [
    ({'count': 7}, 'photos: 7 photographs are needed, but there are only 6'),
    ({'count': 0}, 'must be at least 1, got 0'),
    ({'names': ['one'], 'count': 2}, 'there are only 1 names in the list'),
    ({'names': ['one', 'p', 'q', 'r', 's', 't']},
     'photos: 5 of 6 photographs of the list are missing: p, q, r and 2 more'),
    ({'names': ['two']},
     'two of the list matches both b/two.JPEG and a/two.png'),
    ({'names': ['c/two']}, 'matches both b/two.JPEG and a/two.png'),
    ({'names': ['one', 'c/one.jpg']},
     'photos: the list names c/one.jpg twice, as one and as c/one.jpg')])
def test_selections_that_are_not_possible(options, message):
  with pytest.raises(UserError) as error:
    listing.choose(a_source(), **options)
  assert message in str(error.value)
  assert '\n' not in str(error.value)


def test_a_list_of_names(tmp_path):
  path = tmp_path / 'names.txt'
  path.write_bytes(b'\xef\xbb\xbfa b.png\r\n\n  val/\xc3\xa9.jpg \n')
  assert listing.read_names(path) == ['a b.png', 'val/é.jpg']
  path.write_bytes(b'\xff\xd8\xff\xe0\0\x10JFIF')
  with pytest.raises(UserError, match=r'names\.txt is not a UTF-8 text'):
    listing.read_names(path)
  path.write_text(' \n\n')
  with pytest.raises(UserError, match=r'names\.txt is empty'):
    listing.read_names(path)
  with pytest.raises(UserError, match=r'none\.txt: No such file'):
    listing.read_names(tmp_path / 'none.txt')


def test_unknown_suffixes_are_part_of_the_name():
  assert listing.stem('a.b/c.d.TIFF') == 'c.d'
  assert listing.stem('a.b/c.d') == 'c.d'
  assert listing.without_suffix('a.png/c.0.png') == 'a.png/c.0'


IMAGES = np.random.default_rng(0).integers(0, 256, (7, 4, 4, 3), np.uint8)


def hash_of(images):
  return listing.set_digest(listing.photo_digest(image) for image in images)


def test_hash_is_of_shapes_and_pixels():
  expected = hashlib.sha256(b''.join(
      hashlib.sha256(b'[4, 4, 3]\n' + image.tobytes()).digest()
      for image in IMAGES)).hexdigest()
  assert hash_of(IMAGES) == expected
  # Pixels may be reversed in memory, as in a mirrored square.
  assert hash_of(IMAGES[:, :, ::-1].copy()[:, :, ::-1]) == expected


def test_hash_depends_on_pixels_order_and_shape():
  changed = IMAGES.copy()
  changed[3, 2, 1, 0] ^= 1
  hashes = [hash_of(images) for images in (
      IMAGES, changed, IMAGES[::-1], IMAGES[:6], IMAGES.reshape(7, 2, 8, 3))]
  assert len(set(hashes)) == 5
  with pytest.raises(ValueError, match='uint8'):
    listing.photo_digest(IMAGES[0].astype(np.float32))
