"""Regions: published and random patterns, superpixels and segments, folders,
and regions in batches."""

import functools

import numpy as np
import pytest
import scipy.ndimage
from PIL import Image

from colorjax.data import (
  order,
  pipeline,
  region_patterns,
  region_sources,
  sources,
)
from colorjax.data.augment import View
from colorjax.errors import UserError
from colorjax.photo import UnreadablePhoto

ANY_SIZE = [(224, 224), (64, 64), (7, 13), (31, 4), (1, 1)]
PAIRS = [('left', 'right'), ('top', 'bottom'),
         ('vertical', 'vertical_complement'),
         ('horizontal', 'horizontal_complement'),
         ('checkerboard', 'checkerboard_complement')]
# The axis and the positions at which the published 224 x 224 files change.
EDGES_OF_PUBLISHED_FILES = {
    'vertical_complement': (1, [52, 112, 172]),
    'horizontal': (0, [52, 112, 172]),
    'vertical': (1, [52, 112, 172]),
    'horizontal_complement': (0, [52, 112, 172]),
}


def photograph(seed=0, height=40, width=52):
  """A photograph of flat color fields, so that there are segments to find."""
  rng = np.random.default_rng(seed)
  coarse = rng.integers(0, 256, (4, 5, 3), np.uint8)
  return np.asarray(Image.fromarray(coarse).resize(
      (width, height), Image.Resampling.NEAREST))


def example(pixels=None, *, turn=0, number=0, index=0, view=None):
  pixels = photograph() if pixels is None else pixels
  height, width = pixels.shape[:2]
  return region_sources.Example(
      pixels=pixels, index=index, photo_shape=(height, width),
      view=view or View(0, 0, height, width), turn=turn,
      draws=functools.partial(order.region_uniforms, 3, number))


def make(spec, photos=None):
  return region_sources.parse(spec).open(
      photos or sources.from_arrays([photograph()]))


class TestPublished:

  def test_there_are_ten_and_all_differ(self):
    patterns = {make('published')(example(turn=turn)).tobytes()
                for turn in range(10)}
    assert len(patterns) == len(region_patterns.PUBLISHED) == 10

  @pytest.mark.parametrize('shape', ANY_SIZE)
  @pytest.mark.parametrize(('one', 'other'), PAIRS)
  def test_complements_divide_all_pixels(self, one, other, shape):
    inside = region_patterns.PUBLISHED[one](*shape)
    assert inside.shape == shape
    assert inside.dtype == bool
    np.testing.assert_array_equal(
        inside, ~region_patterns.PUBLISHED[other](*shape))

  @pytest.mark.parametrize(('name', 'axis', 'first', 'last'), [
      ('left', 1, True, False), ('right', 1, False, True),
      ('top', 0, True, False), ('bottom', 0, False, True)])
  @pytest.mark.parametrize('size', [8, 9])
  def test_halves(self, name, axis, first, last, size):
    inside = np.moveaxis(region_patterns.PUBLISHED[name](size, size), axis, 0)
    assert (inside[:size // 2] == first).all()
    assert (inside[-(size // 2):] == last).all()

  @pytest.mark.parametrize('name', EDGES_OF_PUBLISHED_FILES)
  def test_stripes_change_where_the_published_files_do(self, name):
    axis, edges = EDGES_OF_PUBLISHED_FILES[name]
    inside = np.moveaxis(region_patterns.PUBLISHED[name](224, 224), axis, 0)
    assert (inside == inside[:, :1]).all()
    np.testing.assert_array_equal(
        np.flatnonzero(np.diff(inside[:, 0])) + 1, edges)
    assert inside[0, 0] == ('complement' not in name)

  def test_checkerboard_is_a_kronecker_product(self):
    cells = np.indices((4, 4)).sum(0) % 2 == 0
    np.testing.assert_array_equal(
        region_patterns.PUBLISHED['checkerboard'](224, 112),
        np.kron(cells, np.ones((56, 28), bool)))

  def test_patterns_scale(self):
    for pattern in region_patterns.PUBLISHED.values():
      large = pattern(224, 224)
      np.testing.assert_array_equal(pattern(56, 56), large[2::4, 2::4])


class TestRandom:

  @pytest.mark.parametrize('name', region_patterns.RANDOM)
  @pytest.mark.parametrize('shape', [(40, 52), (33, 17), (1, 1)])
  def test_shape_and_determinism(self, name, shape):
    pixels = np.zeros((*shape, 3), np.uint8)
    first, again, other = (make(name)(example(pixels, number=n))
                           for n in (0, 0, 1))
    assert first.shape == shape
    assert first.dtype == bool
    np.testing.assert_array_equal(first, again)
    assert shape == (1, 1) or (first != other).any()

  @pytest.mark.parametrize('name', region_patterns.RANDOM)
  def test_is_rarely_empty_or_full_and_covers_every_pixel(self, name):
    regions = np.stack([make(name)(example(number=n)) for n in range(200)])
    share = regions.mean((1, 2))
    assert ((share > 0.02) & (share < 0.98)).mean() > 0.95
    assert share.std() > 0.05
    assert regions.mean(0).min() > 0.2
    assert regions.mean(0).max() < 0.8

  def test_stripes_are_parallel(self):
    """A stripe pattern is constant along one direction."""
    inside = region_patterns.random_stripes(
        40, 40, lambda n: np.array([0.25, 0.4, 0.1, 0.5])[:n])
    # Its direction is 45 degrees, so it is constant along the other diagonal.
    np.testing.assert_array_equal(inside[1:, :-1], inside[:-1, 1:])
    assert (inside[0] != inside[0, 0]).any()

  def test_one_box_by_hand(self):
    draws = np.array([0.0, 0.9, 0.2, 0.6, 0.5, 0.0, *[0.5] * 12])
    inside = region_patterns.random_boxes(40, 80, lambda n: draws[:n])
    # 40 * (1/8 + 0.1) = 9 rows and 80 * (1/8 + 0.3) = 34 columns; the first
    # row is floor(0.5 * 32) = 16.
    expected = np.zeros((40, 80), bool)
    expected[16:25, :34] = True
    np.testing.assert_array_equal(inside, expected)
    draws[1] = 0.1
    np.testing.assert_array_equal(
        region_patterns.random_boxes(40, 80, lambda n: draws[:n]), ~expected)

  def test_blobs_have_the_drawn_share_and_few_parts(self):
    for number in range(20):
      draws = functools.partial(order.region_uniforms, 0, number)
      inside = region_patterns.random_blobs(64, 64, draws)
      assert inside.mean() == pytest.approx(0.2 + 0.6 * draws(1)[0], abs=1e-3)
      assert scipy.ndimage.label(inside)[1] < 20

  @pytest.mark.parametrize(('draw', 'cell'), [(0, 1), (0.3, 2), (0.99, 8)])
  def test_noise_is_made_of_cells(self, draw, cell):
    def draws(count):
      values = order.region_uniforms(0, 0, count)
      values[:2] = draw, 0.5
      return values
    inside = region_patterns.random_noise(48, 64, draws)
    cells = inside[::cell, ::cell]
    np.testing.assert_array_equal(
        inside, np.kron(cells, np.ones((cell, cell), bool)))
    assert (inside[::2 * cell] != inside[cell::2 * cell]).any()
    assert cells.mean() == pytest.approx(0.5, abs=3 / 2 / cells.size**0.5)


class TestFromPhotographs:

  @pytest.mark.parametrize('name', ['superpixels', 'segments'])
  def test_is_neither_empty_nor_full(self, name):
    shares = []
    for number in range(12):
      inside = make(name)(example(number=number))
      assert inside.shape == (40, 52)
      assert inside.any()
      assert not inside.all()
      shares.append(inside.mean())
    assert np.std(shares) > 0.1

  def test_flat_fields_are_inside_or_outside_as_a_whole(self):
    """The pixels near the edge are ignored: the blur makes segments there."""
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[:, 20:] = 250, 120, 0
    found = set()
    for number in range(20):
      inside = make('segments')(example(pixels, number=number))
      for half in inside[:, :17], inside[:, 23:]:
        assert half.all() or not half.any()
      found.add((inside[0, 0], inside[0, -1]))
    assert {(True, False), (False, True)} <= found

  @pytest.mark.parametrize('name', ['superpixels', 'segments'])
  def test_a_picture_of_one_color_is_no_error(self, name):
    pixels = np.full((16, 16, 3), 90, np.uint8)
    assert make(name)(example(pixels)).any()

  def test_mirrored_photographs_can_be_segmented(self):
    assert make('superpixels')(example(photograph()[:, ::-1])).any()

  def test_all(self):
    assert make('all')(example()).all()


class TestParse:

  def test_the_entries_of_a_list_take_turns(self):
    mixed = make('left, all,checkerboard')
    for turn, name in enumerate(['left', 'all', 'checkerboard'] * 2):
      np.testing.assert_array_equal(
          mixed(example(turn=turn)), make(name)(example()))

  def test_every_entry_of_a_list_cycles_through_its_own_patterns(self):
    mixed = make('halves,published')
    seen = [mixed(example(turn=turn)).tobytes() for turn in range(40)]
    assert len(set(seen[0::2])) == 4
    assert len(set(seen[1::2])) == 10

  @pytest.mark.parametrize('spec', ['diagonal', '', 'left,', 'published;all'])
  def test_refuses_unknown_names(self, spec):
    with pytest.raises(UserError, match=r'masks .* unknown; use one of publ'):
      region_sources.parse(spec)


@pytest.fixture
def mask_folder(tmp_path):
  """A function that writes masks by name and returns `folder:PATH`."""
  def write(**arrays):
    for name, array in arrays.items():
      path = tmp_path / f'{name.replace("__", "/")}.png'
      path.parent.mkdir(exist_ok=True)
      Image.fromarray(array).save(path)
    return f'folder:{tmp_path}'
  return write


def named(photos, labels):
  return sources.from_arrays(photos, labels=labels, name='folder:photos')


class TestFolder:

  def test_pairs_by_name_in_any_order_and_format(self, mask_folder):
    inside = np.zeros((40, 52), bool)
    inside[5:9, 30:] = True
    spec = mask_folder(b=inside, roses__a=255 - 255 * inside.astype(np.uint8))
    region = make(spec, named([photograph()] * 2, ['roses/a.jpg', 'b.jpeg']))
    np.testing.assert_array_equal(region(example(index=0)), ~inside)
    np.testing.assert_array_equal(region(example(index=1)), inside)

  def test_zeros_and_ones_are_a_mask(self, mask_folder):
    ones = np.zeros((40, 52), np.uint8)
    ones[3, 4] = 1
    region = make(mask_folder(a=ones), named([photograph()], ['a.jpg']))
    np.testing.assert_array_equal(region(example()), ones == 1)

  @pytest.mark.parametrize('scale', [1, 3])
  @pytest.mark.parametrize('is_mirrored', [False, True])
  def test_is_cut_and_mirrored_with_its_photograph(
      self, mask_folder, scale, is_mirrored):
    """The photograph is its own mask, so their views must agree exactly."""
    mask = np.random.default_rng(0).integers(0, 2, (40, 52), np.uint8) * 255
    pixels = mask.repeat(scale, 0).repeat(scale, 1)[..., None].repeat(3, 2)
    view = View(7 * scale, 11 * scale, 16 * scale, 16 * scale, is_mirrored)
    # Each mask pixel becomes 3 x 3 pixels, so no pixel is interpolated.
    square = pixels[view.top:view.top + view.rows,
                    view.left:view.left + view.columns]
    square = square.repeat(3 // scale, 0).repeat(3 // scale, 1)
    square = square[:, ::-1] if is_mirrored else square
    region = make(mask_folder(a=mask), named([pixels], ['a.jpg']))
    found = region(region_sources.Example(
        pixels=square, index=0, photo_shape=pixels.shape[:2], view=view,
        turn=0, draws=lambda n: np.zeros(n)))
    np.testing.assert_array_equal(found, square[..., 0] > 127)

  def test_batches_and_masks_belong_together(self, mask_folder):
    """With random crops, flips and sizes, light pixels stay inside."""
    rng = np.random.default_rng(1)
    photos, arrays = [], {}
    for i in range(5):
      inside = np.zeros((30 + i, 44), bool)
      top, left = rng.integers(2, 12, 2)
      inside[top:top + 14, left:left + 22] = True
      photos.append(np.where(inside[..., None], 255, 0).astype(
          np.uint8).repeat(3, 2))
      # The masks have twice the size of the photographs.
      arrays[f'p{i}'] = inside.repeat(2, 0).repeat(2, 1)
    spec = pipeline.TrainSpec(
        batch_size=5, image_size=32,
        regions=region_sources.parse(mask_folder(**arrays)))
    photos = named(photos, [f'p{i}.jpg' for i in range(5)])
    for step in range(6):
      batch = pipeline.train_batch(photos, spec, 0, step)
      light = batch['image'][..., :1] / 255
      # Bicubic edges are a pixel or two wide.
      assert np.abs(light - batch['region']).mean() < 0.08

  def test_missing_pairs_are_counted_and_named(self, mask_folder):
    spec = mask_folder(b=np.zeros((4, 4), bool))
    photos = named([photograph()] * 6, [f'x/{n}.jpg' for n in 'abcde'] +
                   ['b.png'])
    with pytest.raises(UserError) as caught:
      make(spec, photos)
    message = str(caught.value)
    assert '5 of the 6 photographs of folder:photos have no mask' in message
    assert 'x/a.jpg, x/b.jpg, x/c.jpg;' in message
    assert 'x/d.jpg' not in message
    assert message.endswith('name the mask of x/a.jpg x/a.png')
    assert '\n' not in message

  def test_a_stream_checks_the_pairs_before_it_starts(self, mask_folder):
    spec = pipeline.TrainSpec(
        batch_size=1, image_size=8,
        regions=region_sources.parse(mask_folder(b=np.zeros((4, 4), bool))))
    with pytest.raises(UserError, match='1 of the 1 photographs'):
      pipeline.train_stream(named([photograph()], ['a.jpg']), spec, 0)

  def test_refuses_missing_folders_files_and_empty_folders(self, tmp_path):
    (tmp_path / 'file').touch()
    for path, message in (('none', 'does not exist'), ('file', 'not a folder'),
                          ('', 'no images in')):
      with pytest.raises(UserError, match=message):
        region_sources.parse(f'folder:{tmp_path / path}')

  def test_refuses_two_masks_of_one_photograph(self, mask_folder, tmp_path):
    spec = mask_folder(a=np.zeros((4, 4), bool))
    (tmp_path / 'a.gif').write_bytes(b'')
    with pytest.raises(UserError, match=r'a\.gif and .*a\.png are both'):
      region_sources.parse(spec)

  def test_a_damaged_mask_is_named(self, mask_folder, tmp_path):
    spec = mask_folder(a=np.zeros((40, 52), bool))
    region = make(spec, named([photograph()], ['a.jpg']))
    (tmp_path / 'a.png').write_bytes(b'no picture')
    with pytest.raises(UnreadablePhoto, match=r'a\.png'):
      region(example())

  def test_folder_must_follow_a_comma(self, tmp_path):
    with pytest.raises(UserError, match='put a comma before folder:'):
      region_sources.parse(f'leftfolder:{tmp_path}')


SPEC = pipeline.TrainSpec(batch_size=4, image_size=16)
MIXED = region_sources.parse('published,noise,superpixels')


def photographs(count=7):
  return sources.from_arrays([photograph(i, 30 + i, 40 - i)
                              for i in range(count)])


def same(one, other):
  assert one.keys() == other.keys()
  for name in one:
    assert one[name].dtype == other[name].dtype
    np.testing.assert_array_equal(one[name], other[name])


class TestBatches:

  def test_regions_change_nothing_else(self):
    spec = pipeline.TrainSpec(batch_size=4, image_size=16, regions=MIXED)
    for step in range(3):
      batch = pipeline.train_batch(photographs(), spec, 0, step)
      region = batch.pop('region')
      same(batch, pipeline.train_batch(photographs(), SPEC, 0, step))
      assert region.shape == (4, 16, 16, 1)
      assert region.dtype == np.float32
      assert set(np.unique(region)) == {0, 1}

  @pytest.mark.parametrize('engine', ['threads', 'tf.data'])
  def test_engines_agree(self, engine):
    spec = pipeline.TrainSpec(batch_size=4, image_size=16, regions=MIXED)
    with pipeline.train_stream(photographs(), spec, 2, start_step=3,
                               num_steps=3, engine=engine) as stream:
      for step, batch in enumerate(stream, 3):
        same(batch, pipeline.train_batch(photographs(), spec, 2, step))

  def test_every_photograph_with_every_pattern(self):
    """As published: ten epochs contain each combination once."""
    spec = pipeline.TrainSpec(batch_size=7, image_size=16,
                              regions=region_sources.parse('published'))
    seen = []
    for step in range(10):
      batch = pipeline.train_batch(photographs(), spec, 1, step)
      seen += [(int(i), region.tobytes())
               for i, region in zip(batch['index'], batch['region'],
                                    strict=True)]
      assert len({region for _, region in seen[-7:]}) == 7
    assert len(set(seen)) == 70

  def test_random_regions_differ_by_seed_and_by_visit(self):
    spec = pipeline.TrainSpec(batch_size=7, image_size=16,
                              regions=region_sources.parse('noise'))
    regions = {region.tobytes() for seed in (0, 1) for step in (0, 1)
               for region in pipeline.train_batch(
                   photographs(), spec, seed, step)['region']}
    assert len(regions) == 28

  @pytest.mark.parametrize('engine', ['threads', 'tf.data'])
  def test_evaluation_has_one_region_for_each_photograph(self, engine):
    def batches(batch_size, engine):
      with pipeline.eval_stream(
          photographs(), batch_size=batch_size, image_size=16, regions=MIXED,
          engine=engine) as stream:
        return list(stream)

    regions = np.concatenate([b['region'] for b in batches(4, engine)])
    np.testing.assert_array_equal(regions[7:], 0)
    np.testing.assert_array_equal(
        regions[:7],
        np.concatenate([b['region'] for b in batches(7, 'threads')]))
    assert regions[:7].any((1, 2, 3)).all()
    assert len({region.tobytes() for region in regions}) == 8

  def test_regions_and_crops_share_no_numbers(self):
    assert (order.region_uniforms(0, 0, 9) != order.uniforms(0, 0, 9)).all()
    np.testing.assert_array_equal(
        order.region_uniforms(5, 6, 3), order.region_uniforms(5, 6, 9)[:3])
