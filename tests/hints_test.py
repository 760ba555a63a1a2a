"""colorjax.hints: what is shown, where, and that it can be drawn again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from colorjax import hints
from colorjax.errors import UserError

AB = jax.random.uniform(
    jax.random.key(9), (12, 15, 2), minval=-90., maxval=90.)


def _draw(seed, n, size=1, ab=AB):
  return jax.tree.map(
      np.asarray, hints.random_points(jax.random.key(seed), ab, n, size))


@pytest.mark.parametrize('n', [0, 1, 7, 180])
def test_that_many_pixels_show_their_own_colour(n):
  ab, mask = _draw(0, n)
  assert ab.shape == (12, 15, 2)
  assert mask.shape == (12, 15, 1)
  assert mask.sum() == n
  assert set(np.unique(mask)) <= {0, 1}
  np.testing.assert_array_equal(ab, np.where(mask > 0, AB, 0))


def test_squares_are_whole_and_of_the_size():
  """One square of 3 x 3: nine pixels side by side, wherever it falls."""
  for seed in range(20):
    _, mask = _draw(seed, 1, 3)
    rows, columns = np.nonzero(mask[..., 0])
    assert len(rows) == 9
    assert np.ptp(rows) == np.ptp(columns) == 2


def test_squares_cover_what_a_loop_over_their_corners_covers():
  """Corners of squares are those of single pixels drawn on the smaller grid."""
  _, corners = _draw(3, 6, 1, AB[:9, :12])
  expected = np.zeros((12, 15))
  for row, column in np.argwhere(corners[..., 0]):
    expected[row:row + 4, column:column + 4] = 1
  _, mask = _draw(3, 6, 4)
  np.testing.assert_array_equal(mask[..., 0], expected)


def test_more_hints_are_the_same_and_further_ones():
  few, many = _draw(5, 4)[1], _draw(5, 9)[1]
  assert (many >= few).all()


def test_places_are_uniform():
  """400 draws of 3 of 9 x 9 corners, borders too: within 5 deviations."""
  masks = jax.vmap(lambda key: hints.random_points(
      key, AB[:9, :9], 3)[1])(jax.random.split(jax.random.key(1), 400))
  count = np.asarray(masks.sum(0))[..., 0]
  share = 3 / 81
  deviation = np.sqrt(400 * share * (1 - share))
  assert np.abs(count - 400 * share).max() < 5 * deviation
  assert count.std() > deviation / 2


def test_a_photograph_has_its_hints_in_any_batch():
  batch = jnp.stack([AB, -AB, AB + 1])
  together = hints.random_points_of(7, jnp.array([4, 2, 9]), batch, 5)
  alone = hints.random_points_of(7, jnp.array([9]), batch[2:], 5)
  for x, y in zip(together, alone, strict=True):
    np.testing.assert_array_equal(x[2], y[0])
  other_seed = hints.random_points_of(8, jnp.array([4, 2, 9]), batch, 5)
  masks = [m[..., 0] for m in (*together[1], *other_seed[1])]
  assert len({m.tobytes() for m in map(np.asarray, masks)}) == 6


@pytest.mark.parametrize(('n', 'size'), [
    (181, 1), (-1, 1), (1, 13), (1, 0), (5, 12)])
def test_no_room(n, size):
  with pytest.raises(UserError, match=f'{n} hints of {size} x {size} pixels '
                     'asked of a photograph of 12 x 15'):
    _draw(0, n, size)
