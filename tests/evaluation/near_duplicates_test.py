"""Near-duplicates: changed copies are found, other photographs are not."""

import dataclasses
import io

import numpy as np
import pytest
import skimage.data
import skimage.transform
from PIL import Image

from colorjax.data import sources
from colorjax.data.screening import Screen
from colorjax.errors import UserError
from colorjax.evaluation import near_duplicates

PHOTOS = {
    'astronaut': skimage.data.astronaut(), 'coffee': skimage.data.coffee(),
    'chelsea': skimage.data.chelsea(), 'rocket': skimage.data.rocket(),
    'retina': skimage.data.retina()[200:1200, 200:1200]}


def distance(first, second):
  return (int(first) ^ int(second)).bit_count()


def resized(pixels):
  small = skimage.transform.resize(pixels, (90, 120), anti_aliasing=True)
  return np.round(255 * small).astype(np.uint8)


def compressed(pixels):
  data = io.BytesIO()
  Image.fromarray(pixels).save(data, 'jpeg', quality=40)
  return np.asarray(Image.open(data))


def brighter(pixels):
  return np.clip(pixels * 1.1, 0, 255).astype(np.uint8)


def grey(pixels):
  level = pixels @ np.array([0.2126, 0.7152, 0.0722])
  return np.repeat(np.round(level).astype(np.uint8)[..., None], 3, axis=-1)


def mirrored(pixels):
  return pixels[:, ::-1]


def source_of(images, name='photos'):
  return sources.from_arrays(
      list(images.values()), labels=list(images), name=name)


def find(test, train, **options):
  lines = []
  pairs = near_duplicates.find(
      test, train, num_threads=2, report=lines.append, **options)
  return pairs, lines


def test_hash_agrees_with_its_definition():
  """32 x 32 pixels need no resizing: the bits are those of the plain DCT."""
  level = np.random.default_rng(0).integers(0, 256, (32, 32), np.uint8)
  places = np.arange(32) + 0.5
  waves = np.cos(np.pi / 32 * np.arange(8)[:, None] * places)
  waves[0] /= np.sqrt(2)
  block = (waves @ level @ waves.T).ravel()
  threshold = sorted(block[1:])[31]
  bits = ['0'] + ['1' if value > threshold else '0' for value in block[1:]]
  got = near_duplicates.perceptual_hash(np.stack([level] * 3, -1))
  assert isinstance(got, np.uint64)
  assert f'{int(got):064b}' == ''.join(bits)


def test_contrast_is_the_standard_deviation_of_low_frequencies():
  rows = np.arange(32)[:, None]
  wave = 128 + 50 * np.cos(np.pi * (rows + 0.5) * 2 / 32)  # third row of DCT
  pixels = np.broadcast_to(wave.round(), (32, 32))[..., None].repeat(3, -1)
  got = near_duplicates.contrast(pixels.astype(np.uint8))
  assert got == pytest.approx(50 / np.sqrt(2), rel=0.01)
  assert near_duplicates.contrast(np.full((40, 40, 3), 77, np.uint8)) == (
      pytest.approx(0, abs=1e-9))


@pytest.mark.parametrize(
    'change', [resized, compressed, brighter, grey, mirrored])
def test_copies_are_found_and_nothing_else(change):
  train = source_of({f'{name} copy': change(pixels)
                     for name, pixels in PHOTOS.items()})
  pairs, _ = find(source_of(PHOTOS), train)
  assert [(p.test_label, p.train_label) for p in pairs] == [
      (name, f'{name} copy') for name in PHOTOS]
  for index, pair in enumerate(pairs):
    assert (pair.test_index, pair.train_index) == (index, index)
    assert pair.is_mirrored == (change is mirrored)
    assert pair.correlation > 0.95
    if change is not mirrored:
      hashes = [near_duplicates.perceptual_hash(image) for image in (
          PHOTOS[pair.test_label], change(PHOTOS[pair.test_label]))]
      assert pair.distance == distance(*hashes)


def test_pairs_are_sorted_by_distance_and_limited():
  chelsea = PHOTOS['chelsea']
  train = source_of({'far': brighter(chelsea[:, 8:]), 'same': chelsea,
                     'other': PHOTOS['rocket']})
  hashes = [near_duplicates.perceptual_hash(image)
            for image in (chelsea, brighter(chelsea[:, 8:]))]
  far = distance(*hashes)
  assert far > 0
  test = source_of({'chelsea': chelsea})
  pairs, _ = find(test, train, max_distance=far)
  assert [(p.train_label, p.distance) for p in pairs] == [
      ('same', 0), ('far', far)]
  pairs, _ = find(test, train, max_distance=far - 1)
  assert [p.train_label for p in pairs] == ['same']
  with pytest.raises(ValueError, match='0 to 64'):
    find(test, train, max_distance=65)


def test_similar_hashes_of_different_thumbnails_are_not_a_pair():
  """Every pair of photographs is a candidate; the thumbnails decide."""
  test = source_of(PHOTOS)
  pairs, _ = find(test, test, max_distance=64)
  assert [(p.test_index, p.train_index) for p in pairs] == [
      (n, n) for n in range(len(PHOTOS))]
  hashes = near_duplicates.compute(test, report=lambda line: None)
  everything = near_duplicates.compare(
      hashes, hashes, max_distance=64, min_correlation=-1)
  assert len(everything) == len(PHOTOS)**2


def test_comparison_in_parts_finds_the_same(monkeypatch):
  rng = np.random.default_rng(0)
  train = near_duplicates.compute(
      sources.from_arrays([PHOTOS['coffee'][n:] for n in range(9)]
                          + [PHOTOS['chelsea']]), report=lambda line: None)
  test = dataclasses.replace(train, index=train.index[:3],
                             plain=train.plain[:3], mirrored=rng.integers(
                                 0, 2**63, 3, np.uint64))
  whole = near_duplicates.compare(test, train)
  assert len({pair.train_index for pair in whole}) > 2
  monkeypatch.setattr(near_duplicates, '_COMPARISONS_AT_A_TIME', 7)
  assert near_duplicates.compare(test, train) == whole


def test_flat_photographs_are_counted_and_not_compared():
  noise = np.random.default_rng(0).integers(0, 2, (64, 64, 3), np.uint8)
  page, sky = np.full((64, 64, 3), 250, np.uint8), 200 + noise
  images = {'page': page, 'sky': sky, 'coffee': PHOTOS['coffee']}
  pairs, lines = find(source_of(images, 'a'), source_of(images, 'b'))
  assert [p.test_label for p in pairs] == ['coffee']
  assert lines[-2:] == [
      '1 of 3 photographs of a have a near-duplicate in b; '
      '2 and 2 flat photographs were not compared',
      '  coffee and coffee: 0 bits']
  assert any('a: 3 hashes in all' in line for line in lines)


def test_photographs_that_the_screen_leaves_out_are_not_hashed(tmp_path):
  Image.fromarray(PHOTOS['coffee']).save(tmp_path / 'b.png')
  (tmp_path / 'a.png').write_bytes(b'nothing')
  Image.fromarray(grey(PHOTOS['coffee'])).save(tmp_path / 'c.png')
  folder = sources.folder(tmp_path)
  with pytest.raises(UserError, match=r'a\.png'):
    find(folder, folder)
  pairs, lines = find(
      Screen(folder, on_bad_image='skip', min_chroma=2), folder_of_two(folder))
  assert [(p.test_label, p.train_label) for p in pairs] == [
      ('b.png', 'b.png'), ('b.png', 'c.png')]
  assert any(line.startswith('1 of 1 photographs') for line in lines)


def folder_of_two(folder):
  return Screen(folder, on_bad_image='skip')


def test_lines_list_at_most_a_number_of_pairs():
  train = source_of({f'coffee {n}': PHOTOS['coffee'] for n in range(4)}, 'b')
  test = source_of({'coffee': PHOTOS['coffee'], 'cat': PHOTOS['chelsea']}, 'a')
  hashes = [near_duplicates.compute(photos, report=lambda line: None)
            for photos in (test, train)]
  pairs = near_duplicates.compare(*hashes)
  assert near_duplicates.lines(pairs, *hashes, most=3) == [
      '1 of 2 photographs of a have a near-duplicate in b; '
      '0 and 0 flat photographs were not compared', *(
          f'  coffee and coffee {n}: 0 bits' for n in range(3)),
      '  and 1 more']
