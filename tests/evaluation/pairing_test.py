"""Pairing of photographs with pictures, which are cropped in the same way."""

import threading

import numpy as np
import pytest
from PIL import Image

from colorjax import photo
from colorjax.data import augment, pipeline, sources
from colorjax.data.screening import Screen
from colorjax.errors import UserError
from colorjax.evaluation import pairing

SIZE = 8


def a_photo(number, shape=(12, 18)):
  rng = np.random.default_rng(number)
  return rng.integers(0, 256, (*shape, 3), np.uint8)


def a_source(labels, shape=(12, 18)):
  return sources.from_arrays([a_photo(n, shape) for n in range(len(labels))],
                             labels=labels, name='originals')


def put(folder, pictures):
  for name, pixels in pictures.items():
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(folder / name)


def negatives(names):
  """Negatives as the pictures of another program, by file name."""
  return {name: 255 - a_photo(n) for n, name in enumerate(names)}


def pair(photos, folder):
  said = []
  return pairing.pair(photos, folder, report=said.append), said


def test_pictures_by_path_and_by_base_name(tmp_path):
  source = a_source(['a/x.jpg', 'b/x.jpg', 'val/y.JPEG', 'z.0.png'])
  put(tmp_path, negatives(['a/x.png', 'b/x.png', 'other/y.bmp', 'z.0.png']))
  put(tmp_path, {'z.png': a_photo(9), 'n.png': a_photo(9)})
  paired, said = pair(source, tmp_path)
  assert paired.outputs.size == 4
  for i in range(4):
    np.testing.assert_array_equal(paired.outputs.read(i), 255 - a_photo(i))
  assert [paired.outputs.label(i) for i in range(4)] == [
      'a/x.png', 'b/x.png', 'other/y.bmp', 'z.0.png']
  assert paired.unused == ('n.png', 'z.png')
  assert said == [f'folder:{tmp_path}: 2 of 6 pictures belong to no photograph '
                  'of originals: n.png, z.png']


def test_a_stamp_changes_with_its_pictures_only(tmp_path):
  put(tmp_path, negatives(['x.png', 'y.png']))
  paired, _ = pair(a_source(['x.jpg', 'y.jpg']), tmp_path)
  before = [paired.stamp([0]), paired.stamp([1]), paired.stamp(range(2))]
  assert len(set(before)) == 3
  assert [paired.stamp([0]), paired.stamp([1])] == before[:2]
  Image.fromarray(a_photo(7)).save(tmp_path / 'y.png', compress_level=0)
  assert paired.stamp([0]) == before[0]
  assert paired.stamp([1]) != before[1]
  assert paired.stamp(range(2)) != before[2]


def test_no_report_if_all_pictures_are_used(tmp_path):
  put(tmp_path, negatives(['x.png']))
  paired, said = pair(a_source(['x.jpg']), tmp_path)
  assert not said
  assert paired.unused == ()


@pytest.mark.parametrize(('labels', 'names', 'message'), [
    (['a.jpg', 'b.jpg', 'c.jpg', 'd.jpg', 'e.jpg'], ['b.png'],
     'has no picture for 4 of 5 photographs: a.jpg, c.jpg, d.jpg and 1 '
     'more'),
    (['a.jpg'], ['b.png'], 'has no picture for 1 of 1'),
    (['a/x.jpg', 'b/x.jpg'], ['x.png'], 'for 2 of 2 photographs: a/x.jpg, b/x'),
    (['x.jpg'], ['x.bmp', 'x.png'],
     'x.jpg has two pictures, x.bmp and x.png'),
    (['x.jpg'], ['a/x.png', 'b/x.png'], 'two pictures, a/x.png and b/x.png'),
    (['x.jpg', 'x.png'], ['x.png'],
     'x.png matches both x.jpg and x.png')])
def test_photographs_that_cannot_be_paired(tmp_path, labels, names, message):
  put(tmp_path, negatives(names))
  with pytest.raises(UserError) as error:
    pair(a_source(labels), tmp_path)
  assert message in str(error.value)
  assert '\n' not in str(error.value)


def test_a_folder_that_does_not_exist(tmp_path):
  with pytest.raises(UserError, match='does not exist'):
    pair(a_source(['x.jpg']), tmp_path / 'none')


def test_photographs_that_the_screen_leaves_out_need_no_picture(tmp_path):
  grey = np.full((12, 18, 3), 90, np.uint8)
  source = sources.from_arrays([a_photo(0), grey, a_photo(2)],
                               labels=['a.jpg', 'b.jpg', 'c.jpg'])
  put(tmp_path, {'a.png': 255 - a_photo(0), 'c.png': 255 - a_photo(2)})
  with pytest.raises(UserError, match=r'1 of 3 photographs: b\.jpg'):
    pair(source, tmp_path)
  screen = Screen(source, min_chroma=2)
  paired, _ = pair(screen, tmp_path)
  assert screen.exclusions.counts() == {'grey': 1}
  with pytest.raises(UserError, match=r'no picture of b\.jpg'):
    paired.outputs.read(1)
  assert paired.outputs.label(1) == 'b.jpg'
  batch, = batches_of(paired, batch_size=4)
  np.testing.assert_array_equal(batch['padding_mask'], [1, 0, 1, 0])
  assert not batch['picture'][[1, 3]].any()
  np.testing.assert_array_equal(
      batch['picture'][2], augment.fit_square(255 - a_photo(2), SIZE, 'crop'))


@pytest.mark.parametrize('fit', augment.FITS)
def test_a_picture_of_the_photographs_size_is_made_square_like_it(fit):
  picture = a_photo(0)
  got = pairing.output_square(picture, (12, 18), SIZE, fit)
  np.testing.assert_array_equal(got, augment.fit_square(picture, SIZE, fit))


def test_a_picture_of_the_evaluated_size_is_not_changed():
  picture = a_photo(0, (SIZE, SIZE))
  got = pairing.output_square(picture, (12, 18), SIZE, 'crop')
  np.testing.assert_array_equal(got, picture)
  # A photograph of this very size is not resized either.
  got = pairing.output_square(picture, (SIZE, SIZE), SIZE, 'squash')
  np.testing.assert_array_equal(got, picture)


def test_a_picture_of_another_size_is_refused():
  with pytest.raises(UserError, match=r'^out/x\.png has 20 x 10 pixels, but '
                     'its photograph has 18 x 12; .* square of side 8'
                     ) as error:
    pairing.output_square(a_photo(0, (10, 20)), (12, 18), SIZE, 'crop',
                          name='out/x.png')
  assert 'rotated' not in str(error.value)
  with pytest.raises(UserError, match='rotated'):
    pairing.output_square(a_photo(0, (18, 12)), (12, 18), SIZE, 'crop')


def batches_of(paired, *, batch_size, fit='crop', photos=None):
  stream = pipeline.eval_stream(
      photos or paired.photos, batch_size=batch_size, image_size=SIZE, fit=fit,
      engine='threads', num_threads=2)
  with pairing.attach(stream, paired, fit=fit, num_threads=2) as attached:
    return list(attached)


@pytest.mark.parametrize('fit', augment.FITS)
def test_batches_hold_each_picture_beside_its_photograph(tmp_path, fit):
  labels = [f'{n}.jpg' for n in range(11)]
  source = a_source(labels)
  pictures = negatives([f'{n}.png' for n in range(11)])
  grey = np.arange(12 * 18, dtype=np.uint8).reshape(12, 18)
  pictures |= {'3.png': grey, '4.png': a_photo(4, (SIZE, SIZE))}
  put(tmp_path, pictures)
  paired, _ = pair(source, tmp_path)
  batches = batches_of(paired, batch_size=2, fit=fit)
  assert len(batches) == 6
  assert not batches[-1]['picture'][1].any()
  for n in range(11):
    batch, row = batches[n // 2], n % 2
    assert batch['index'][row] == n
    assert batch['picture'].dtype == np.uint8
    if n == 3:
      expected = augment.fit_square(np.stack([grey] * 3, -1), SIZE, fit)
    elif n == 4:
      expected = a_photo(4, (SIZE, SIZE))
    else:
      expected = augment.fit_square(255 - a_photo(n), SIZE, fit)
    np.testing.assert_array_equal(batch['picture'][row], expected)
    np.testing.assert_array_equal(
        batch['image'][row], augment.fit_square(a_photo(n), SIZE, fit))


def test_photographs_are_read_once(tmp_path):
  reads = []
  source = sources.Source(
      name='counted', size=3, label=lambda i: f'{i}.jpg',
      read=lambda i: (reads.append(i), a_photo(i))[1])
  put(tmp_path, negatives(['0.png', '1.png', '2.png']))
  paired, _ = pair(source, tmp_path)
  first = batches_of(paired, batch_size=2)
  assert sorted(reads) == [0, 1, 2]
  # Batches of the source itself do not record shapes: photographs are reread.
  paired, _ = pair(source, tmp_path)
  second = batches_of(paired, batch_size=2, photos=source)
  assert sorted(reads) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
  for one, other in zip(first, second, strict=True):
    np.testing.assert_array_equal(one['picture'], other['picture'])


def test_a_bad_picture_is_named_and_no_thread_remains(tmp_path):
  put(tmp_path, negatives(['0.png', '1.png']))
  (tmp_path / '2.png').write_bytes(b'nothing')
  paired, _ = pair(a_source(['0.jpg', '1.jpg', '2.jpg']), tmp_path)
  before = threading.active_count()
  with pytest.raises(photo.UnreadablePhoto, match=r'2\.png'):
    batches_of(paired, batch_size=1)
  put(tmp_path, {'2.png': a_photo(2, (5, 5))})
  with pytest.raises(UserError, match=r'^2\.png has 5 x 5 pixels'):
    batches_of(paired, batch_size=1)
  assert threading.active_count() == before
