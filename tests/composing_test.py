"""Colorings that are composed: regions, masks, and equality with `colorize`."""

import jax
import numpy as np
import pytest
import skimage.data
import tiny_method

from colorjax import choices, composing, full_size, inference, regions
from colorjax.choices import Area, Choices, Pick

pytestmark = pytest.mark.usefixtures('compiles_quickly')

SIDE = 16


@pytest.fixture(scope='module')
def method():
  colorizer = tiny_method.build(num_components=8)
  return composing.Method(
      colorizer, colorizer.init(jax.random.key(0), (SIDE, SIDE)), SIDE)


def stripes(height=90, width=120):
  """Dark, then light, with a border at two thirds; some noise."""
  rng = np.random.default_rng(0)
  grey = np.where(np.arange(width) < width * 2 // 3, 60, 190)
  return np.clip(grey + rng.integers(-3, 4, (height, width)), 0, 255).astype(
      np.uint8)


def subject_of(pixels, longest=1024):
  return composing.Subject(
      inference.as_photo(pixels), longest=longest, sizes=[SIDE])


def colorized(pixels, method, index):
  answer = inference.answers(
      tiny_method.build(num_components=8), num_proposals=8)
  return list(inference.colorize(
      answer, method._variables, inference.as_photo(pixels),
      image_size=SIDE))[index].pixels


def test_one_coloring_is_that_of_colorize(method):
  pixels = skimage.data.coffee()[::3, ::3]
  subject = subject_of(pixels)
  for index in (0, 5):
    got = composing.render(subject, full_size.lightness_of(pixels), method,
                           Choices(coloring=Pick(index)))
    np.testing.assert_array_equal(got, colorized(pixels, method, index))


def test_regions_are_the_colorings_that_were_chosen(method):
  pixels = stripes()
  subject = subject_of(pixels)
  chosen = Choices(regions=((Pick(3), Area(at=(110, 50), size='large')),))
  got = composing.render(
      subject, full_size.lightness_of(pixels), method, chosen)
  here, there = (colorized(pixels, method, i) for i in (0, 3))
  np.testing.assert_array_equal(got[:, :74], here[:, :74])
  np.testing.assert_array_equal(got[:, 86:], there[:, 86:])
  assert (here[:, :74] != there[:, :74]).any(-1).mean() > 0.9


def test_later_regions_lie_over_earlier_ones(method):
  pixels = stripes()
  subject = subject_of(pixels)
  stroke = Area(points=((20, 45), (60, 45)), width=30)
  got = composing.render(
      subject, full_size.lightness_of(pixels), method, Choices(regions=(
          (Pick(2), stroke), (Pick(4), Area(points=((40, 45),), width=12)))))
  for column, index in ((24, 2), (40, 4), (57, 2), (100, 0)):
    np.testing.assert_array_equal(
        got[45, column], colorized(pixels, method, index)[45, column])


def test_the_lightness_is_kept_where_colorings_meet(method):
  pixels = np.full((60, 60), 128, np.uint8)
  got = composing.render(
      subject_of(pixels), full_size.lightness_of(pixels), method,
      Choices(regions=((Pick(4), Area(points=((0, 30),), width=60)),)))
  lab = skimage.color.rgb2lab(got)
  assert np.abs(lab[..., 0] - lab[0, -1, 0]).max() < 0.5
  # Opposite hues meet: some pixels are between the two.
  a = lab[30, :, 1]
  assert a[0] < -10
  assert a[-1] > 10
  assert ((a > -8) & (a < 8)).any()
  assert (np.diff(a) > -0.5).all()


def test_a_mask_is_exactly_grey_outside(method):
  pixels = stripes()
  subject = subject_of(pixels)
  lightness = full_size.lightness_of(pixels)
  chosen = Choices(mask=((True, Area(at=(110, 50), size='large')),))
  region = composing.region_of(subject.grid, chosen, lightness)
  np.testing.assert_array_equal(region, np.broadcast_to(
      np.arange(120) < 80, region.shape))
  got = composing.render(subject, lightness, method, chosen)
  np.testing.assert_array_equal(got[~region].std(-1), 0)
  np.testing.assert_array_equal(
      got[region], colorized(pixels, method, 0)[region])
  opposite = Choices(mask_start='grey', mask=((False, chosen.mask[0][1]),))
  np.testing.assert_array_equal(
      composing.region_of(subject.grid, opposite, lightness), ~region)


def test_a_preview_is_the_download_in_small(method):
  pixels = np.kron(stripes(), np.ones((4, 4), np.uint8))
  subject = subject_of(pixels, longest=120)
  chosen = Choices(regions=((Pick(2), Area(at=(440, 100), size='large')),))
  small = composing.render(subject, subject.lightness, method, chosen)
  large = composing.render(
      subject, full_size.lightness_of(pixels), method, chosen)
  assert small.shape == (90, 120, 3)
  assert large.shape == (360, 480, 3)
  difference = np.abs(large[2::4, 2::4].astype(int) - small)
  assert np.median(difference) <= 1
  assert (difference.max(-1) > 12).mean() < 0.03


@pytest.mark.parametrize('shape', [(40, 30), (700, 90), (3, 500)])
def test_weights_are_exact_shares(shape):
  rng = np.random.default_rng(1)
  pixels = rng.integers(0, 256, shape).astype(np.uint8)
  grid = regions.Grid(pixels)
  labels = rng.integers(0, 3, grid.lightness.shape).astype(np.uint8)
  labels[:, :12] = 1
  weights = regions.Weights(grid, labels, 3)
  lightness = full_size.lightness_of(pixels)
  whole = weights.of(lightness, slice(0, shape[0]), slice(0, shape[1]))
  np.testing.assert_array_equal(whole.sum(-1), 1)
  np.testing.assert_array_equal(whole * 256, np.rint(whole * 256))
  assert whole.min() >= 0
  edge = max(1, shape[1] * 4 // grid.lightness.shape[1])
  np.testing.assert_array_equal(whole[:, :edge, 1], 1)
  assert weights.of(lightness, slice(0, shape[0]), slice(0, edge)) == 1
  # A part of the picture has the weights of the whole.
  rows, columns = slice(1, shape[0]), slice(shape[1] // 2, shape[1])
  part = weights.of(lightness, rows, columns)
  np.testing.assert_allclose(part, whole[rows, columns], atol=1.01 / 256)


def test_borders_follow_the_edges_of_the_photograph():
  def steps(pixels):
    grid = regions.Grid(pixels)
    labels = grid.draw([(1, Area(points=((740, 360),), width=200))])
    share = regions.Weights(grid, labels, 2).of(
        full_size.lightness_of(pixels), slice(340, 380), slice(560, 740))
    return np.diff(share[20, :, 1])

  large = np.ones((8, 8), np.uint8)
  edge, flat = steps(np.kron(stripes(), large)), steps(
      np.full((720, 960), 128, np.uint8))
  # The stroke ends at column 640, where the first photograph has its edge.
  assert edge.argmax() == 79
  assert edge.max() > 0.3
  assert flat.max() < 0.15


def test_predictions_are_kept_and_can_be_forgotten(method, monkeypatch):
  subject = subject_of(stripes())
  calls = []
  predict = method.predict
  monkeypatch.setattr(method, 'predict', lambda *args: (
      calls.append(args[1:]), predict(*args))[1])
  lightness = subject.lightness

  def render(**chosen):
    composing.render(subject, lightness, method, Choices(**chosen))

  render()
  render(coloring=Pick(3))
  render(regions=((Pick(2), Area(at=(1, 1))),))
  assert calls == [(None, 1.0)]
  render(saturation=0.5)
  render(coloring=Pick(0, seed=4))
  assert calls == [(None, 1.0), (None, 0.5), (4, 1.0)]
  before = subject.num_bytes
  subject.forget()
  assert subject.num_bytes < before
  render()
  assert len(calls) == 4
  for i in range(2 * composing._KEPT):
    render(saturation=i / 10)
  assert len(subject._kept) == composing._KEPT


def test_colorings_that_a_method_does_not_have(method):
  with pytest.raises(choices.UserError, match='has 8 colorings'):
    method.check(Pick(8))
  assert method.num_colorings == 8


def test_deviation_is_that_of_the_weighted_colorings():
  found = composing.Prediction(
      np.zeros((1, 1)), np.array([[[[3.0, 0.0]]], [[[-5.0, 8.0]]]]),
      np.array([0.3, 0.1]))
  a, b = np.repeat([3.0, -5.0], [3, 1]), np.repeat([0.0, 8.0], [3, 1])
  np.testing.assert_allclose(found.deviation, np.sqrt(a.var() + b.var()))
