"""Training reads JPEG files at a lower resolution where the crop allows it."""

import io

import numpy as np
import pytest
import skimage.data
from PIL import Image

from colorjax import photo
from colorjax.data import augment, folders, order, pipeline, screening, source
from colorjax.data.augment import Augment, View

COFFEE = skimage.data.coffee()  # 400 x 600


def _jpeg(pixels, **settings):
  buffer = io.BytesIO()
  Image.fromarray(pixels).save(buffer, 'JPEG', quality=95, **settings)
  return buffer.getvalue()


def _as(factor):
  return lambda height, width: factor


@pytest.mark.parametrize('factor', photo.REDUCTIONS)
def test_a_reduced_picture_is_the_mean_of_blocks(factor):
  read = photo.read_reduced(_jpeg(COFFEE), 'coffee.jpg', _as(factor))
  assert (read.shape, read.factor) == ((400, 600), factor)
  blocks = COFFEE.reshape(400 // factor, factor, 600 // factor, factor, 3)
  assert read.pixels.shape == (400 // factor, 600 // factor, 3)
  assert read.pixels.dtype == np.uint8
  assert np.abs(read.pixels - blocks.mean((1, 3))).mean() < 3


def test_sides_are_rounded_up():
  read = photo.read_reduced(_jpeg(COFFEE[:397, :599]), 'coffee.jpg', _as(4))
  assert (read.shape, read.pixels.shape) == ((397, 599), (100, 150, 3))


@pytest.mark.parametrize(('cut', 'factor'), [(0, 4), (2, 2), (1, 1)])
def test_pictures_are_turned_upright(cut, factor):
  exif = Image.Exif()
  exif[0x112] = 6
  pixels = COFFEE[:400 - cut]
  data = _jpeg(pixels, exif=exif)
  asked = []

  def reduce(height, width):
    asked.append((height, width))
    return 4

  read = photo.read_reduced(data, 'coffee.jpg', reduce)
  assert asked == [(600, 400 - cut)]
  assert (read.shape, read.factor) == (asked[0], factor)
  rows, columns = 600 // factor, (400 - cut) // factor
  blocks = np.rot90(pixels, -1).reshape(rows, factor, columns, factor, 3)
  assert np.abs(read.pixels - blocks.mean((1, 3))).mean() < 3


def test_other_files_are_read_whole():
  buffer = io.BytesIO()
  Image.fromarray(COFFEE).save(buffer, 'PNG')
  read = photo.read_reduced(buffer.getvalue(), 'coffee.png', _as(8))
  assert (read.shape, read.factor) == ((400, 600), 1)
  np.testing.assert_array_equal(read.pixels, COFFEE)


def test_grey_files_have_three_channels():
  read = photo.read_reduced(_jpeg(COFFEE[..., 0]), 'grey.jpg', _as(2))
  assert read.pixels.shape == (200, 300, 3)


def test_damaged_files_are_refused():
  with pytest.raises(photo.UnreadablePhoto, match=r'coffee\.jpg: damaged'):
    photo.read_reduced(_jpeg(COFFEE)[:3000], 'coffee.jpg', _as(2))


@pytest.mark.parametrize(('rows', 'columns', 'size', 'factor'), [
    (127, 300, 64, 1), (128, 300, 64, 2), (255, 256, 64, 2), (256, 256, 64, 4),
    (5000, 5000, 64, 8), (10, 10, 64, 1)])
def test_the_view_keeps_the_pixels_that_are_needed(rows, columns, size, factor):
  assert augment.reduction(View(0, 0, rows, columns), size) == factor


def test_views_of_a_reduced_picture_lie_where_they_should():
  """A ramp shows a shift of a fraction of a pixel."""
  ramp = np.broadcast_to(np.arange(0, 256, 0.5).astype(np.uint8)[:, None, None],
                         (512, 512, 3))
  read = photo.read_reduced(_jpeg(ramp), 'ramp.jpg', _as(2))
  for top in range(8):
    view = View(top, 3, 301, 257)
    whole = augment.cut(ramp, view, 32).astype(int)
    found = augment.cut(read.pixels, view, 32, factor=2)
    # A shift of one pixel would be a mean difference of 0.5.
    assert abs((found - whole).mean()) < 0.15


@pytest.fixture
def folder(tmp_path):
  """Photographs of 400 x 600 and of 100 x 150 pixels."""
  (tmp_path / '0.jpg').write_bytes(_jpeg(COFFEE))
  (tmp_path / '1.jpg').write_bytes(_jpeg(COFFEE[::-1]))
  (tmp_path / '2.jpg').write_bytes(_jpeg(COFFEE[::4, ::4]))
  return folders.folder(tmp_path)


def test_training_batches_are_close_to_those_of_whole_files(folder):
  spec = pipeline.TrainSpec(batch_size=12, image_size=64)
  quick = pipeline.train_batch(folder, spec, seed=0, step=3)
  whole = pipeline.train_batch(
      source.in_memory(folder), spec, seed=0, step=3)
  np.testing.assert_array_equal(quick['index'], whole['index'])
  difference = np.abs(
      quick['image'].astype(int) - whole['image']).mean((1, 2, 3))
  is_large = quick['index'] < 2
  assert difference.max() < 4
  assert difference[is_large].mean() > 0
  assert not difference[~is_large].any()


def test_several_sources_are_reduced_too(folder):
  joined = source.concatenate([folder, folder], repeats=[1, 2])
  read = joined.read_reduced(4, _as(2))
  assert read.pixels.shape == (200, 300, 3)
  arrays = source.concatenate([source.from_arrays([COFFEE])])
  assert arrays.read_reduced(0, _as(2)).factor == 1


def test_whether_a_photograph_is_grey_depends_on_its_file_alone(folder):
  """The chroma is measured at full resolution, at the first reading."""
  factors = []
  screen = screening.Screen(folder, min_chroma=2)
  for _ in range(3):
    _, read = screen.read_reduced_from(0, _as(8))
    factors.append(read.factor)
  assert factors == [1, 8, 8]
  screen = screening.Screen(folder, min_chroma=1000)
  with pytest.raises(source.SourceError, match='all 3 photographs'):
    screen.read_reduced_from(0, _as(8))


def test_evaluation_reads_whole_files(folder):
  with pipeline.eval_stream(folder, batch_size=3, image_size=48) as batches:
    images = next(batches)['image']
  np.testing.assert_array_equal(
      images[0], augment.fit_square(folder.read(0), 48, 'crop'))


def test_draws_do_not_depend_on_the_resolution():
  draws = order.uniforms(0, 5, augment.NUM_DRAWS)
  view = augment.random_view(400, 600, Augment(), draws)

  def reduce(height, width):
    return augment.reduction(
        augment.random_view(height, width, Augment(), draws), 48)

  read = photo.read_reduced(_jpeg(COFFEE), 'coffee.jpg', reduce)
  assert read.factor > 1
  assert augment.random_view(*read.shape, Augment(), draws) == view
