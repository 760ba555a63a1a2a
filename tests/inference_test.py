"""Coloring photographs: lightness, regions, tiles, upsampling and memory."""

import dataclasses
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.color
import skimage.data
import tiny_method

from colorjax import color, full_size, inference, photo, resample
from colorjax.data import folders, pipeline
from colorjax.photo import painting, strokes
from colorjax.report import sheets

RNG = np.random.default_rng(0)
TINY = tiny_method.build()
VARIABLES = {'params': {'chroma': np.float32(60)}, 'model_state': {}}


def grey_level(pixels):
  """Unrounded grey level of equal luminance, in float64 by scikit-image."""
  top = np.iinfo(pixels.dtype).max
  if pixels.ndim == 2:
    return pixels.astype(np.float64)
  y = skimage.color.rgb2xyz(pixels / top)[..., 1]
  return top * np.where(y <= 0.0031308, 12.92 * y, 1.055 * y**(1 / 2.4) - 0.055)


def a_photo(pixels, **fields):
  return photo.Photo(**{'alpha': None, 'icc_profile': None, 'exif': None,
                        'format': 'PNG', 'path': 'x'} | fields, pixels=pixels)


def colored(pixels, *, image_size=32, **options):
  answer = inference.answers(TINY)
  return next(iter(inference.colorize(
      answer, VARIABLES, a_photo(pixels), image_size=image_size,
      **options))).pixels


ROUND = {bits: jax.jit(lambda lab, bits=bits: painting.round_at_lightness(
    color.fit_to_gamut(lab), bits=bits)) for bits in (8, 16)}


def grey_lightness(levels, top):
  return skimage.color.rgb2lab(
      np.repeat(levels[:, None] / top, 3, -1))[:, 0].astype(np.float32)


def test_every_8_bit_grey_level_is_kept_at_any_color():
  levels = np.arange(256)
  side = np.arange(-110, 111, 10)
  ab = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
  ab = ab + RNG.uniform(-5, 5, ab.shape)
  lab = np.zeros((256, len(ab), 3), np.float32)
  lab[..., 0] = grey_lightness(levels, 255)[:, None]
  lab[..., 1:] = ab
  got = np.asarray(ROUND[8](lab))
  assert got.dtype == np.uint8
  assert np.abs(grey_level(got) - levels[:, None]).max() < 0.45


def test_every_16_bit_grey_level_is_kept_at_any_color():
  levels = np.arange(65536)
  for reach in (20, 110):
    ab = RNG.uniform(-reach, reach, (65536, 2))
    lab = np.concatenate([grey_lightness(levels, 65535)[:, None], ab], -1)
    got = np.asarray(ROUND[16](lab.astype(np.float32)))
    assert got.dtype == np.uint16
    assert np.abs(grey_level(got[None])[0] - levels).max() < 0.46
    assert (np.ptp(got[100:-100], axis=-1) > 0).mean() > 0.999  # still colored


@pytest.mark.parametrize(('bits', 'largest', 'mean'),
                         [(8, 12.0, 0.6), (16, 0.05, 0.003)])
def test_colors_in_the_gamut_are_kept(bits, largest, mean):
  # Includes the surface of the cube, where channels are at their limits.
  rgb = RNG.integers(0, 256, (20_000, 3))
  rgb[np.arange(6000), RNG.integers(0, 3, 6000)] = RNG.choice([0, 255], 6000)
  rgb = rgb[rgb.max(-1) > 30] / 255
  lab = skimage.color.rgb2lab(rgb)
  got = np.asarray(ROUND[bits](lab.astype(np.float32))) / (2**bits - 1)
  error = np.linalg.norm(skimage.color.rgb2lab(got) - lab, axis=-1)
  assert error.max() < largest
  assert error.mean() < mean


@pytest.mark.parametrize('bits', [8, 16])
def test_grey_level_of_colored_input(bits):
  dtype = np.uint8 if bits == 8 else np.uint16
  rgb = RNG.integers(0, 2**bits, (1, 100_000, 3)).astype(dtype)
  lab = skimage.color.rgb2lab(rgb / (2**bits - 1))
  lab[..., 1:] = RNG.uniform(-110, 110, lab[..., 1:].shape)
  before = grey_level(rgb)
  after = grey_level(np.asarray(ROUND[bits](lab.astype(np.float32))))
  # Near the border of two levels, float32 cannot tell the level of the
  # photograph.
  clear = np.abs(before % 1 - 0.5) > (0.001 if bits == 8 else 0.02)
  assert clear.mean() > 0.95
  np.testing.assert_array_equal(np.rint(before)[clear], np.rint(after)[clear])


@pytest.mark.parametrize('suffix', ['.png', '.tiff', '.webp', '.bmp'])
def test_lightness_through_a_file(suffix, tmp_path):
  grey = np.asarray(color_photo()[..., 1])
  source = a_photo(grey, alpha=grey[::-1].copy())
  path = tmp_path / f'out{suffix}'
  photo.write(path, colored(grey), like=source)
  got = photo.read(path)
  np.testing.assert_array_equal(np.rint(grey_level(got.pixels)), grey)
  assert np.ptp(got.pixels.astype(int), axis=-1).mean() > 20  # and colored
  if suffix != '.bmp':
    np.testing.assert_array_equal(got.alpha, source.alpha)


@pytest.mark.parametrize('suffix', ['.png', '.tiff'])
def test_lightness_through_a_16_bit_file(suffix, tmp_path):
  grey = RNG.integers(0, 65536, (70, 90)).astype(np.uint16)
  path = tmp_path / f'out{suffix}'
  photo.write(path, colored(grey))
  got = photo.read(path).pixels
  assert got.dtype == np.uint16
  np.testing.assert_array_equal(np.rint(grey_level(got)), grey)


def test_16_bits_colored_for_an_8_bit_format():
  grey = RNG.integers(0, 65536, (40, 50)).astype(np.uint16)
  got = colored(grey, bits=8)
  assert got.dtype == np.uint8
  clear = np.abs(grey / 257 % 1 - 0.5) > 0.01
  np.testing.assert_array_equal(
      np.rint(grey_level(got))[clear], np.rint(grey / 257)[clear])


def color_photo():
  return skimage.data.astronaut()[:200, 150:400]


def test_colors_of_the_input_are_ignored():
  rgb = color_photo()
  lab = skimage.color.rgb2lab(rgb)
  got = skimage.color.rgb2lab(colored(rgb))
  assert np.abs(got[..., 0] - lab[..., 0]).max() < 0.6
  # The method paints hue 0, so b is near 0 everywhere.
  assert np.abs(got[..., 2]).mean() < 1
  assert np.abs(lab[..., 2]).mean() > 5


@pytest.mark.parametrize('shape', [(1, 1), (1, 40), (37, 3), (513, 20)])
def test_any_size(shape):
  grey = RNG.integers(0, 256, shape).astype(np.uint8)
  got = colored(grey)
  assert got.shape == (*shape, 3)
  np.testing.assert_array_equal(np.rint(grey_level(got)), grey)


def test_tiles_do_not_change_the_coloring(monkeypatch):
  rgb = color_photo()
  whole = colored(rgb)
  monkeypatch.setattr(full_size, '_TILE', 96)
  tiled = colored(rgb)
  # The arithmetic is the same, but the compiler may fuse it differently.
  difference = np.abs(whole.astype(int) - tiled)
  assert difference.max() <= 1
  assert (difference > 0).mean() < 1e-3


def test_deterministic():
  np.testing.assert_array_equal(colored(color_photo()),
                                colored(color_photo()))


def test_proposals_in_order_and_compiled_once():
  traces = []

  def propose(variables, inputs, k):
    traces.append(inputs['lightness'].shape)
    return TINY.propose(variables, inputs, k)

  answer = inference.answers(
      dataclasses.replace(TINY, propose=propose), num_proposals=3)
  for shape in [(30, 40), (80, 20)]:
    grey = np.full(shape, 150, np.uint8)
    got = list(inference.colorize(
        answer, VARIABLES, a_photo(grey), image_size=16))
    assert [c.probability for c in got] == [0.5, 0.25, 0.125]
    ab = [skimage.color.rgb2lab(c.pixels)[0, 0, 1:] for c in got]
    chroma = 60 * skimage.color.rgb2lab([[[150 / 255] * 3]])[0, 0, 0] / 100
    np.testing.assert_allclose(
        ab, chroma * np.array([[1, 0], [0, 1], [-1, 0]]), atol=0.6)
  assert traces == [(1, 16, 16, 1)]


def test_pixels_outside_a_region_are_exactly_grey():
  pixels = color_photo()
  region = np.zeros(pixels.shape[:2], bool)
  region[10:40, 5:] = True
  got, free = colored(pixels, region=region), colored(pixels)
  np.testing.assert_array_equal(got[region], free[region])
  outside = got[~region].astype(int)
  assert np.ptp(outside, axis=-1).max() == 0
  assert np.ptp(free[~region].astype(int), axis=-1).max() > 20
  # Rounded to the nearest level, with the tolerance of float32.
  away = np.abs(outside[:, 0] - grey_level(pixels)[~region])
  assert away.max() < 0.5 + 1e-4


def test_a_method_that_accepts_regions_gets_them():
  seen = []

  def predict(variables, inputs):
    jax.debug.callback(lambda x: seen.append(np.asarray(x)), inputs['region'])
    return TINY.predict(variables, inputs)

  answer = inference.answers(dataclasses.replace(
      TINY, predict=predict, accepts=frozenset({'region'})))
  region = np.zeros((40, 60), bool)
  region[:20] = True
  list(inference.colorize(answer, VARIABLES, a_photo(
      np.full((40, 60), 150, np.uint8)), image_size=16, region=region))
  jax.effects_barrier()
  expected = np.zeros((1, 16, 16, 1))
  expected[:, :8] = 1
  np.testing.assert_array_equal(seen[0], expected)


def test_lightness_of_any_depth():
  for pixels in (color_photo(), RNG.integers(0, 65536, (30, 20)).astype(
      np.uint16)):
    rgb = pixels if pixels.ndim == 3 else np.dstack([pixels] * 3)
    expected = skimage.color.rgb2lab(rgb / np.iinfo(pixels.dtype).max)[..., 0]
    got = inference.lightness_of(pixels)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, atol=2e-3)


@pytest.mark.parametrize('kind', ['rgb8', 'grey8', 'rgb16', 'grey16'])
def test_the_network_sees_what_it_sees_in_training(kind, tmp_path):
  """`colorize` and the data pipeline give the network the same input."""
  pixels = color_photo()
  if kind.startswith('grey'):
    pixels = pixels[..., 1]
  if kind.endswith('16'):
    pixels = pixels.astype(np.uint16) * 256 + 77
  photo.write(tmp_path / 'a.png', pixels)
  with pipeline.eval_stream(
      folders.folder(tmp_path), batch_size=1, image_size=32, fit='squash',
      engine='threads') as stream:
    (batch,) = stream
  expected, _ = color.split_lightness(jnp.asarray(batch['image']))
  asked = []

  def answer(variables, inputs):
    asked.append(inputs['lightness'])
    return jnp.zeros((1, 1, 32, 32, 2)), None

  list(inference.colorize(answer, {}, photo.read(tmp_path / 'a.png'),
                          image_size=32))
  np.testing.assert_allclose(asked[0], expected, atol=1e-4)


compiled = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, *_, **__: compiled.append(event)
    if event.endswith('backend_compile_duration') else None)


@pytest.mark.parametrize('proposals', [0, 2])
@pytest.mark.parametrize('given', ['nothing', 'region', 'hints'])
def test_photos_of_other_sizes_need_no_compilation(proposals, given):
  """Includes grey and color, 8 and 16 bits."""
  answer = inference.answers(TINY, num_proposals=proposals)
  rng = np.random.default_rng(3)

  def color_one(shape):
    pixels = rng.integers(0, 65536, shape).astype(
        np.uint16 if shape[0] % 2 else np.uint8)
    picture = a_photo(pixels)
    hints = region = None
    if given == 'region':
      region = rng.random(shape[:2]) < 0.5
    if given == 'hints':
      painted = np.zeros((*shape[:2], 3), pixels.dtype)
      alpha = np.zeros(shape[:2], pixels.dtype)
      alpha[:2] = np.iinfo(alpha.dtype).max
      hints = strokes.of_strokes(a_photo(painted, alpha=alpha), picture, 32)
      assert hints[1].any()
    for coloring in inference.colorize(
        answer, VARIABLES, picture, image_size=32, bits=8, region=region,
        hints=hints):
      assert coloring.pixels.shape == (*shape[:2], 3)
      small = sheets.thumbnail(coloring.pixels, 48)
      assert sheets.lightness_only(small).shape == small.shape

  color_one((40, 50, 3))
  assert compiled
  before = len(compiled)
  for n in range(20):
    color_one((30 + 3 * n, 90 - 2 * n) + ((3,) if n % 3 else ()))
  assert len(compiled) == before


# Upsampling.

def up(field, lightness):
  height, width = lightness.shape
  return np.asarray(resample.evaluate(
      field, jnp.asarray(lightness), resample.positions(0, height, height),
      resample.positions(0, width, width)))


def test_without_edges_it_is_linear_interpolation():
  ab = RNG.uniform(-50, 50, (8, 6, 2)).astype(np.float32)
  flat = np.full((8, 6), 50, np.float32)
  got = up(resample.fit_locally(flat, ab), np.full((56, 66), 50, np.float32))
  expected = jax.image.resize(ab, (56, 66, 2), 'linear')
  np.testing.assert_allclose(got, expected, atol=1e-4)


def test_color_follows_the_edge_of_lightness():
  """Two colors with a slanted edge, at 16 times the field's resolution."""
  y, x = np.mgrid[:256, :256] / 256
  inside = x + 0.3 * y > 0.66
  lightness = np.where(inside, 80, 30).astype(np.float32)
  ab = np.where(inside[..., None], [40.0, -20], [-30.0, 50])
  small = ab.reshape(16, 16, 16, 16, 2).mean((1, 3)).astype(np.float32)
  guide = lightness.reshape(16, 16, 16, 16).mean((1, 3))
  got = up(resample.fit_locally(guide, small), lightness)
  bilinear = jax.image.resize(small, ab.shape, 'linear')
  error = np.linalg.norm(got - ab, axis=-1)
  plain_error = np.linalg.norm(bilinear - ab, axis=-1)
  # The share of pixels with the color of the other side of the edge.
  assert (error > 30).mean() < 0.015
  assert (plain_error > 30).mean() > 0.03
  assert error.mean() < 0.4 * plain_error.mean()


def test_colors_stay_in_the_range_of_the_prediction():
  ab = RNG.uniform(-50, 50, (12, 12, 2)).astype(np.float32)
  guide = RNG.uniform(30, 60, (12, 12)).astype(np.float32)
  lightness = RNG.uniform(0, 100, (60, 60)).astype(np.float32)  # goes beyond
  got = up(resample.fit_locally(guide, ab), lightness)
  assert got.min() >= ab.min() - 1e-3
  assert got.max() <= ab.max() + 1e-3
  padded = np.pad(ab, [(2, 2), (2, 2), (0, 0)], mode='edge')
  near = padded[3:8, 3:8].reshape(-1, 2)  # two pixels around (3, 3)
  block = got[15:20, 15:20].reshape(-1, 2)
  assert (block <= near.max(0) + 1e-3).all()
  assert (block >= near.min(0) - 1e-3).all()


def test_memory_of_a_large_photo():
  """Memory for coloring 6 megapixels."""
  code = '''
import threading, time
import numpy as np
import tiny_method
from colorjax import inference, photo
def resident():
  with open('/proc/self/statm') as file:
    return int(file.read().split()[1]) * 4096
answer = inference.answers(tiny_method.build())
def run(height, width):
  pixels = np.tile(np.arange(width, dtype=np.uint8), (height, 1))
  picture = photo.Photo(pixels, None, None, None, 'PNG', 'x')
  variables = {'params': {'chroma': np.float32(40)}, 'model_state': {}}
  return next(iter(inference.colorize(
      answer, variables, picture, image_size=64))).pixels
run(600, 600)
before, seen = resident(), []
def watch():
  while True:
    seen.append(resident())
    time.sleep(0.01)
threading.Thread(target=watch, daemon=True).start()
result = run(2000, 3000)
print((max(seen) - before) / 1e6)
'''
  done = subprocess.run(
      [sys.executable, '-c', code], capture_output=True, text=True, check=True,
      env=os.environ | {'PYTHONPATH': os.path.dirname(__file__)})
  megabytes = float(done.stdout)
  # 8 bytes per pixel: photograph 1, lightness 4, coloring 3.
  assert 6 * 7 < megabytes < 6 * 8 + 60
