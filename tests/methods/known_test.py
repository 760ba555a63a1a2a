"""Known values: blocks, hints, regions, and what training draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from asking import keys

from colorjax.errors import UserError
from colorjax.methods import known

pytestmark = pytest.mark.usefixtures('compiles_quickly')


def test_blocks_of_hints_and_regions_by_hand():
  """A photograph of 2 x 4 pixels, two blocks of 2 x 2."""
  ab = jnp.arange(16.).reshape(1, 2, 4, 2)
  hint_mask = jnp.asarray([[1, 0, 0, 0], [1, 0, 0, 1.]])[None, ..., None]
  found = known.of_inputs({
      'lightness': jnp.zeros((1, 2, 4, 1)), 'hint_ab': ab * hint_mask,
      'hint_mask': hint_mask}, 2)
  # The pixels (0, 0) and (1, 0), and the pixel (1, 3).
  np.testing.assert_allclose(found.ab, [[[[4, 5], [14, 15]]]])
  np.testing.assert_array_equal(found.mask, jnp.ones((1, 1, 2, 1)))
  region = jnp.asarray([[0, 1, 0, 0], [0, 0, 0, 0.]])[None, ..., None]
  found = known.of_inputs({
      'lightness': jnp.zeros((1, 2, 4, 1)), 'region': region,
      'hint_ab': ab * hint_mask, 'hint_mask': hint_mask}, 2)
  # Outside the region everything is known to be grey, also where there is a
  # hint. The hints of the first block are outside too, but one of its pixels is
  # inside.
  np.testing.assert_array_equal(found.region[0, 0, :, 0], [1, 0])
  np.testing.assert_array_equal(found.mask[0, 0, :, 0], [0, 1])
  np.testing.assert_array_equal(found.ab, 0)
  np.testing.assert_array_equal(
      known.masked_pool(ab, region, 2), [[[[2, 3], [0, 0]]]])


def test_nothing_is_known_without_hints_and_regions():
  found = known.of_inputs({'lightness': jnp.zeros((2, 4, 4, 1))}, 2)
  np.testing.assert_array_equal(found.mask, 0)
  np.testing.assert_array_equal(found.region, 1)
  field = jnp.ones((2, 2, 2, 2))
  np.testing.assert_array_equal(found.put(5.0, field), field)


def test_sides_that_are_no_multiples_are_named():
  with pytest.raises(UserError, match=r'image_size=6 x 9: .* by 6'):
    known.of_inputs({'lightness': jnp.zeros((1, 6, 9, 1))}, 2, 3)


def test_the_unknown_values_are_counted_and_added():
  """Two of six places are known, which says nothing of infinite values."""
  mask = jnp.asarray([[1, 0, 0], [0, 1, 0.]])[None, ..., None]
  given = known.Known(jnp.zeros((1, 2, 3, 2)), mask, jnp.ones_like(mask))
  values = jnp.arange(12.).reshape(1, 2, 3, 2).at[0, 0, 0, 1].set(jnp.inf)
  assert given.num_unknown().tolist() == [8]
  # Without 0 and 1, 8 and 9.
  assert given.sum_unknown(values).tolist() == [66 - 18]


def test_the_field_of_a_density():
  """The means inside the region, but known values as they were given."""
  ab = jnp.arange(16.).reshape(1, 2, 4, 2)
  inputs = {'lightness': jnp.zeros((1, 2, 4, 1)),
            'region': jnp.asarray([[0, 1, 1, 1], [0, 0, 1, 1.]]
                                  )[None, ..., None],
            'hint_ab': jnp.full((1, 2, 4, 2), 7.),
            'hint_mask': jnp.zeros((1, 2, 4, 1)).at[0, 1, 3].set(1)}
  found = known.field_of(ab, inputs, known.of_inputs(inputs, 2), 2)
  np.testing.assert_array_equal(found, [[[[2, 3], [7, 7]]]])


def test_pixels_with_hints_have_their_color_and_the_outside_is_grey():
  ab = jnp.full((1, 1, 3, 2), 7.0)
  inputs = {'hint_ab': jnp.full((1, 1, 3, 2), 3.0),
            'hint_mask': jnp.asarray([1.0, 0, 1]).reshape(1, 1, 3, 1),
            'region': jnp.asarray([1.0, 1, 0]).reshape(1, 1, 3, 1)}
  np.testing.assert_array_equal(
      known.applied(ab, inputs)[0, 0, :, 0], [3, 7, 0])
  np.testing.assert_array_equal(known.applied(ab, {}), ab)


def _drawn(n, seed=0, **shares):
  ab = jax.random.normal(jax.random.key(9), (n, 16, 16, 2))
  field, found = jax.jit(lambda ab, keys: known.draw(
      keys, ab, None, stride=2, **shares))(ab, keys(n, seed))
  return ab, field, found


def test_shares_of_hints_and_regions():
  _, _, found = _drawn(800, hint_share=0.25, region_share=0.0)
  hinted = found.mask.sum((1, 2, 3))
  # With an expected number between 1 and 8, none is drawn for some.
  assert 0.17 < float((hinted > 0).mean()) < 0.25
  number = float(hinted.sum() / (0.25 * 800))
  assert number == pytest.approx(7 / np.log(8), rel=0.15)
  np.testing.assert_array_equal(found.region, 1)
  _, _, found = _drawn(800, hint_share=0.0, region_share=0.3)
  cut = (found.region == 0).any((1, 2, 3))
  # Boxes that cut off no whole block do not count here.
  assert 0.2 < float(cut.mean()) < 0.31
  np.testing.assert_array_equal(found.mask, 1 - found.region)
  # Half of the regions are boxes, which seldom reach the borders.
  is_box = cut & (found.region[:, ::7, ::7].sum((1, 2, 3)) == 0)
  assert 0.5 < float(is_box.sum() / cut.sum()) < 0.75


def test_drawn_values_are_those_of_the_field():
  for region_share in (0.0, 0.5):
    ab, field, found = _drawn(40, hint_share=0.5, region_share=region_share)
    np.testing.assert_allclose(found.ab, field * found.mask, atol=1e-6)
    np.testing.assert_array_equal(jnp.where(found.region == 0, field, 0), 0)
    if not region_share:
      np.testing.assert_allclose(
          field, ab.reshape(40, 8, 2, 8, 2, 2).mean((2, 4)), atol=1e-5)


def test_what_is_drawn_belongs_to_the_key_of_the_photograph():
  shares = {'hint_share': 0.9, 'region_share': 0.5}
  _, _, found = _drawn(6, **shares)
  ab = jax.random.normal(jax.random.key(9), (6, 16, 16, 2))
  _, alone = known.draw(keys(6)[4:5], ab[4:5], None, stride=2, **shares)
  np.testing.assert_array_equal(alone.mask, found.mask[4:5])
  _, _, other = _drawn(6, seed=1, **shares)
  assert (other.mask != found.mask).any()


def test_the_region_of_a_batch_is_used():
  region = jnp.zeros((2, 4, 4, 1)).at[:, :2].set(1)
  ab = jnp.ones((2, 4, 4, 2))
  field, found = known.draw(keys(2), ab, region, stride=2, hint_share=0.,
                            region_share=1.)
  np.testing.assert_array_equal(found.region[..., 0], [[[1, 1], [0, 0]]] * 2)
  np.testing.assert_array_equal(field[:, 1], 0)
