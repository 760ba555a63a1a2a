"""Hints: random points, painted strokes and strokes as JSON."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from colorjax import color, photo
from colorjax.errors import UserError
from colorjax.photo import strokes as strokes_lib

AB = jax.random.uniform(
    jax.random.key(9), (12, 15, 2), minval=-90., maxval=90.)


def _draw(seed, n, size=1, ab=AB):
  return jax.tree.map(
      np.asarray, strokes_lib.random_points(jax.random.key(seed), ab, n, size))


@pytest.mark.parametrize('n', [0, 1, 7, 180])
def test_n_pixels_get_their_true_color(n):
  ab, mask = _draw(0, n)
  assert ab.shape == (12, 15, 2)
  assert mask.shape == (12, 15, 1)
  assert mask.sum() == n
  assert set(np.unique(mask)) <= {0, 1}
  np.testing.assert_array_equal(ab, np.where(mask > 0, AB, 0))


def test_squares_are_complete():
  """A square of 3 x 3 consists of nine adjacent pixels at any place."""
  for seed in range(20):
    _, mask = _draw(seed, 1, 3)
    rows, columns = np.nonzero(mask[..., 0])
    assert len(rows) == 9
    assert np.ptp(rows) == np.ptp(columns) == 2


def test_squares_cover_what_a_loop_over_their_corners_covers():
  """The corners of squares are those of pixels drawn on the smaller grid."""
  _, corners = _draw(3, 6, 1, AB[:9, :12])
  expected = np.zeros((12, 15))
  for row, column in np.argwhere(corners[..., 0]):
    expected[row:row + 4, column:column + 4] = 1
  _, mask = _draw(3, 6, 4)
  np.testing.assert_array_equal(mask[..., 0], expected)


def test_more_hints_include_the_fewer():
  few, many = _draw(5, 4)[1], _draw(5, 9)[1]
  assert (many >= few).all()


def test_places_are_uniform():
  """400 draws of 3 of 9 x 9 pixels: each count is within 5 deviations."""
  masks = jax.vmap(lambda key: strokes_lib.random_points(
      key, AB[:9, :9], 3)[1])(jax.random.split(jax.random.key(1), 400))
  count = np.asarray(masks.sum(0))[..., 0]
  share = 3 / 81
  deviation = np.sqrt(400 * share * (1 - share))
  assert np.abs(count - 400 * share).max() < 5 * deviation
  assert count.std() > deviation / 2


def test_hints_do_not_depend_on_the_batch():
  batch = jnp.stack([AB, -AB, AB + 1])
  together = strokes_lib.random_points_of(7, jnp.array([4, 2, 9]), batch, 5)
  alone = strokes_lib.random_points_of(7, jnp.array([9]), batch[2:], 5)
  for x, y in zip(together, alone, strict=True):
    np.testing.assert_array_equal(x[2], y[0])
  other_seed = strokes_lib.random_points_of(8, jnp.array([4, 2, 9]), batch, 5)
  masks = [m[..., 0] for m in (*together[1], *other_seed[1])]
  assert len({m.tobytes() for m in map(np.asarray, masks)}) == 6


@pytest.mark.parametrize(('n', 'size'), [
    (181, 1), (-1, 1), (1, 13), (1, 0), (5, 12)])
def test_refuses_hints_that_do_not_fit(n, size):
  with pytest.raises(UserError, match=f'{n} hints of {size} x {size} pixels '
                     'do not fit into a photograph of 12 x 15'):
    _draw(0, n, size)


# Painted strokes.

RED, BLUE = (200, 40, 30), (30, 60, 190)


def _photo(pixels, alpha=None):
  return photo.Photo(pixels=pixels, alpha=alpha, icc_profile=None, exif=None,
                     format='PNG', path='strokes.png')


def _ab(rgb):
  return np.asarray(color.split_lightness(
      jnp.array(rgb, jnp.uint8)[None, None])[1])[0, 0]


GREY = np.linspace(0, 255, 24 * 32).astype(np.uint8).reshape(24, 32)


def _copy():
  """A copy of GREY with a red stroke and a blue one."""
  painted = np.repeat(GREY[..., None], 3, -1)
  painted[2:4, 1:7] = RED
  painted[20, 24:32] = BLUE
  return painted


def _layer():
  """The same strokes on a transparent layer, black where transparent."""
  is_painted = (_copy() != GREY[..., None]).any(-1)
  return _photo(np.where(is_painted[..., None], _copy(), 0).astype(np.uint8),
                np.where(is_painted, 255, 0).astype(np.uint8))


@pytest.mark.parametrize('strokes', [_photo(_copy()), _layer()],
                         ids=['copy', 'layer'])
def test_strokes_become_hints_at_their_place(strokes):
  ab, mask = strokes_lib.of_strokes(strokes, _photo(GREY), 8)
  wanted = np.zeros((8, 8, 2))
  # Cells are 3 rows high and 4 columns wide.
  wanted[0:2, 0:2] = _ab(RED)
  wanted[6, 6:8] = _ab(BLUE)
  np.testing.assert_allclose(ab, wanted, atol=1e-3)
  np.testing.assert_array_equal(mask[..., 0], wanted.any(-1))


def test_strokes_in_one_cell_are_averaged():
  layer = _layer()
  layer.pixels[4, 0] = BLUE  # beside twenty red pixels in the only cell
  layer.alpha[4, 0] = 255
  layer.pixels[20, 24:32] = RED
  ab, mask = strokes_lib.of_strokes(layer, _photo(GREY), 1)
  assert mask.sum() == 1
  np.testing.assert_allclose(
      ab[0, 0], (20 * _ab(RED) + _ab(BLUE)) / 21, atol=1e-3)


def test_a_square_larger_than_the_photograph_has_gaps_between_hints():
  ab, mask = strokes_lib.of_strokes(_layer(), _photo(GREY), 64)
  assert mask.sum() == 12 + 8
  np.testing.assert_allclose(
      ab[2 * 64 // 24, 1 * 64 // 32], _ab(RED), atol=1e-3)


def test_a_copy_may_be_noisy_and_have_the_alpha_of_its_photograph():
  noise = np.random.default_rng(0).integers(-8, 9, (24, 32, 3))
  alpha = np.full((24, 32), 255, np.uint8)
  alpha[:, :16] = 0
  noisy = np.where((_copy() == GREY[..., None]).all(-1, keepdims=True),
                   np.clip(_copy() + noise, 0, 255), _copy())
  found = strokes_lib.of_strokes(
      _photo(noisy.astype(np.uint8), alpha), _photo(GREY, alpha), 8)
  for got, wanted in zip(found, strokes_lib.of_strokes(
      _photo(_copy()), _photo(GREY), 8), strict=True):
    np.testing.assert_array_equal(got, wanted)


def test_16_bits():
  for got, wanted in zip(
      strokes_lib.of_strokes(_photo(_copy().astype(np.uint16) * 257),
                             _photo(GREY.astype(np.uint16) * 257), 8),
      strokes_lib.of_strokes(_photo(_copy()), _photo(GREY), 8), strict=True):
    np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize(('strokes', 'message'), [
    (_photo(_copy()[:, :31]), 'strokes.png is 31 x 24 pixels, but its '
     'photograph is 32 x 24'),
    (_photo(GREY), 'strokes.png holds no strokes')], ids=['size', 'none'])
def test_refuses_another_size_and_missing_strokes(strokes, message):
  with pytest.raises(photo.UnreadablePhoto, match=message):
    strokes_lib.of_strokes(strokes, _photo(GREY), 8)


def _grey(width=200, height=100):
  return photo.Photo(
      pixels=np.full((height, width), 128, np.uint8), alpha=None,
      icc_profile=None, exif=None, format='PNG', path='grey.png')


def test_json_points_and_lines_are_hints_at_their_place(tmp_path):
  path = tmp_path / 'hints.json'
  path.write_text(json.dumps([
      {'color': '#ff0000', 'points': [[150, 20]], 'width': 10},
      {'color': 'rgb(0, 0, 255)', 'points': [[20, 50], [20, 90]],
       'width': 6}]))
  ab, mask = strokes_lib.read(path, _grey(), 50)  # cells of 4 x 2 pixels
  red, blue = (np.asarray(color.rgb_to_lab(np.array(rgb, np.float32)))[1:]
               for rgb in ([1, 0, 0], [0, 0, 1]))
  np.testing.assert_allclose(ab[10, 37], red, atol=0.1)
  for row in (26, 35, 44):
    np.testing.assert_allclose(ab[row, 5], blue, atol=0.1)
  rows, columns = np.nonzero(mask[..., 0])
  left = columns < 20
  # Discs of radius 5 around the point, and of radius 3 around the line's ends.
  assert (rows[~left].min(), rows[~left].max()) == (7, 12)
  assert (rows[left].min(), rows[left].max()) == (23, 46)
  assert (columns[left].min(), columns[left].max()) == (4, 5)


def test_a_thin_json_point_is_a_pixel():
  _, mask = strokes_lib.of_json(
      [{'color': '#0f0', 'points': [[0, 99]], 'width': 0.1}], (100, 200), 100)
  assert mask.sum() == mask[99, 0] == 1


@pytest.mark.parametrize(('hints', 'message'), [
    ({}, 'list of strokes'),
    ([], 'at least one'),
    (['red'], 'stroke 0: .*a stroke looks like'),
    ([{'points': [[0, 0]]}], "stroke 0: 'color'"),
    ([{'color': 'reddish', 'points': [[0, 0]]}], 'reddish'),
    ([{'color': 'red', 'points': [[0, 0]]}, {'color': 'red', 'points': []}],
     'stroke 1: points'),
    ([{'color': 'red', 'points': [[0, 0, 1]]}], 'stroke 0'),
    ([{'color': 'red', 'points': [[200, 0]]}], r'\[200, 0\] is outside the '
     'photograph of 200 x 100'),
    ([{'color': 'red', 'points': [[0, 0]], 'width': 0}], 'out of range'),
    ([{'color': 'red', 'points': [[0, 0]], 'size': 3}], "entry 'size'"),
])
def test_refuses_other_json(tmp_path, hints, message):
  path = tmp_path / 'hints.json'
  path.write_text(json.dumps(hints))
  with pytest.raises(photo.UnreadablePhoto, match=message) as error:
    strokes_lib.read(path, _grey(), 50)
  assert str(path) in str(error.value)
  assert '\n' not in str(error.value)


def test_refuses_a_file_that_is_not_json(tmp_path):
  (tmp_path / 'hints.json').write_text('{')
  with pytest.raises(photo.UnreadablePhoto, match='is not valid JSON'):
    strokes_lib.read(tmp_path / 'hints.json', _grey(), 50)
