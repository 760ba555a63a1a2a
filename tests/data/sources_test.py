import importlib.metadata
import os
import socket

import numpy as np
import pytest
import skimage.data
from PIL import Image

from colorjax.data import folders, screening, sources

FLAT = {'red': (250, 20, 10), 'green': (10, 200, 30), 'blue': (20, 30, 240)}


def save(path, color='red', size=(6, 5)):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.new('RGB', size, FLAT[color]).save(path)


class TestArrays:

  def test_returns_the_arrays(self):
    stack = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3), np.uint8)
    source = sources.from_arrays(stack, name='stack')
    assert source.size == 3
    np.testing.assert_array_equal(source.read(2), stack[2])
    assert source.label(2) == 'stack[2]'

  def test_sizes_may_differ_and_labels_be_given(self):
    source = sources.from_arrays(
        [np.zeros((2, 3, 3), np.uint8), np.zeros((9, 1, 3), np.uint8)],
        labels=['a', 'b'])
    assert source.read(1).shape == (9, 1, 3)
    assert source.label(1) == 'b'

  @pytest.mark.parametrize(('image', 'message'), [
      (np.zeros((4, 4, 3), np.float32), r'arrays\[1\] .* float32 \[4, 4, 3\]'),
      (np.zeros((4, 4), np.uint8), r'arrays\[1\] .* uint8 \[4, 4\]'),
      (np.zeros((4, 4, 4), np.uint8), r'arrays\[1\] .* uint8 \[4, 4, 4\]'),
      (np.zeros((0, 4, 3), np.uint8), r'arrays\[1\] .* uint8 \[0, 4, 3\]'),
  ])
  def test_refuses_other_shapes_and_dtypes(self, image, message):
    with pytest.raises(sources.SourceError, match=message):
      sources.from_arrays([np.zeros((4, 4, 3), np.uint8), image])

  def test_refuses_no_images_and_a_wrong_number_of_labels(self):
    with pytest.raises(sources.SourceError, match='no photographs'):
      sources.from_arrays([])
    with pytest.raises(sources.SourceError, match='1 labels for 2 images'):
      sources.from_arrays(np.zeros((2, 4, 4, 3), np.uint8), labels=['a'])


class TestInMemory:

  def source(self):
    reads = []

    def read(index):
      reads.append(index)
      return np.full((10, 10, 3), index, np.uint8)

    return sources.Source(name='s', size=9, read=read, label=str), reads

  def test_reads_once_within_max_bytes_and_each_time_beyond(self):
    source, reads = self.source()
    kept = sources.in_memory(source, max_bytes=650)
    for index in (4, 5, 6, 4, 5, 6, 6):
      assert (kept.read(index) == index).all()
    assert reads == [4, 5, 6, 6, 6]
    assert (kept.name, kept.size, kept.label(3)) == ('s', 9, '3')


class TestBundled:

  def test_every_file_is_in_the_wheel(self):
    shipped = {file.name for file in importlib.metadata.files('scikit-image')
               if file.parent.as_posix() == 'skimage/data'}
    assert shipped.issuperset(folders.BUNDLED_TRAIN + folders.BUNDLED_HELD_OUT)

  def test_held_out_photographs_are_not_trained_on(self):
    train = sources.parse('bundled', train=True)
    held_out = sources.parse('bundled', train=False)
    labels = [s.label(i) for s in (train, held_out) for i in range(s.size)]
    assert len(set(labels)) == len(labels) == 8
    assert [held_out.label(i) for i in range(2)] == ['chelsea.png',
                                                     'coffee.png']

  def test_pixels_are_those_of_scikit_image(self):
    held_out = sources.parse('bundled', train=False)
    np.testing.assert_array_equal(held_out.read(0), skimage.data.chelsea())
    np.testing.assert_array_equal(held_out.read(1), skimage.data.coffee())
    train = sources.parse('bundled', train=True)
    np.testing.assert_array_equal(train.read(0), skimage.data.astronaut())

  def test_all_of_them_are_in_color(self):
    for train in True, False:
      source = sources.parse('bundled', train=train)
      for index in range(source.size):
        pixels = source.read(index).astype(int)
        assert (pixels.max(-1) - pixels.min(-1)).mean() > 5


class TestFolder:

  def labels(self, path):
    source = sources.parse(f'folder:{path}', train=True)
    return [source.label(i) for i in range(source.size)]

  def test_reads_nested_folders_in_natural_order(self, tmp_path):
    names = ['9.png', '10.png', 'B/deep/er/1.TIF', 'a/z.bmp', 'a 2/x.webp',
             'a 10/x.tiff', 'b/img2.jpg', 'b/img10.jpg', 'c1.PNG', 'c01.png',
             'c.jpeg']
    for name in reversed(names):
      save(tmp_path / name)
    assert self.labels(tmp_path) == names

  def test_order_does_not_depend_on_the_file_system(
      self, tmp_path, monkeypatch):
    for i in range(12):
      save(tmp_path / f'{i % 3}' / f'{i}.png')
    os.symlink(tmp_path / '0', tmp_path / 'y')
    os.symlink(tmp_path / '0', tmp_path / 'x')
    before = self.labels(tmp_path)
    scandir = os.scandir

    class Backwards:

      def __init__(self, path):
        with scandir(path) as entries:
          self.entries = sorted(entries, key=lambda e: e.name, reverse=True)

      def __enter__(self):
        return self.entries

      def __exit__(self, *_):
        pass

    monkeypatch.setattr(os, 'scandir', Backwards)
    assert self.labels(tmp_path) == before

  def test_ignores_hidden_files_and_other_kinds_of_files(
      self, tmp_path, monkeypatch):
    save(tmp_path / 'seen.png')
    save(tmp_path / '.hidden.png')
    save(tmp_path / '.thumbnails' / '1.png')
    (tmp_path / 'notes.txt').write_text('png')
    (tmp_path / 'png').write_text('')
    (tmp_path / 'folder.png').mkdir()
    os.mkfifo(tmp_path / 'pipe.png')
    with socket.socket(socket.AF_UNIX) as server:
      monkeypatch.chdir(tmp_path)
      server.bind('socket.png')
    assert self.labels(tmp_path) == ['seen.png']

  def test_follows_links_but_not_in_circles(self, tmp_path):
    save(tmp_path / 'photos' / '1.png')
    save(tmp_path / 'elsewhere' / '2.png')
    os.symlink(tmp_path / 'photos', tmp_path / 'photos' / 'loop')
    os.symlink(tmp_path / 'elsewhere', tmp_path / 'photos' / 'more')
    os.symlink(tmp_path / 'photos', tmp_path / 'elsewhere' / 'back')
    os.symlink(tmp_path / 'photos' / '1.png', tmp_path / 'photos' / '3.png')
    assert self.labels(tmp_path / 'photos') == ['1.png', '3.png', 'more/2.png']

  def test_a_broken_link_is_an_unreadable_photograph(self, tmp_path):
    os.symlink(tmp_path / 'gone.png', tmp_path / 'link.png')
    source = sources.folder(tmp_path)
    with pytest.raises(ValueError, match=r'link\.png') as caught:
      source.read(0)
    assert '\n' not in str(caught.value)

  def test_a_name_that_is_not_utf8_can_be_printed(self, tmp_path):
    save(tmp_path / 'ok.png')
    os.rename(tmp_path / 'ok.png', os.fsencode(tmp_path) + b'/\xff.png')
    source = sources.folder(tmp_path)
    assert source.label(0).encode() == rb'\xff.png'
    assert source.read(0).shape == (5, 6, 3)

  def test_reads_the_right_file(self, tmp_path):
    for i, color in enumerate(FLAT):
      save(tmp_path / f'{i}.png', color, size=(6 + i, 5))
    source = sources.folder(tmp_path)
    for i, color in enumerate(FLAT.values()):
      np.testing.assert_array_equal(
          source.read(i), np.broadcast_to(color, (5, 6 + i, 3)))

  def test_missing_empty_and_not_a_folder(self, tmp_path):
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'file').write_text('')
    for name, message in [('none', 'does not exist'),
                          ('empty', 'no photographs in .*/empty'),
                          ('file', 'is a file, not a folder')]:
      with pytest.raises(sources.SourceError, match=message) as caught:
        sources.parse(f'folder:{tmp_path / name}', train=True)
      assert '\n' not in str(caught.value)

  def test_an_unreadable_folder_is_an_error(self, tmp_path, monkeypatch):
    save(tmp_path / 'a' / '1.png')
    scandir = os.scandir

    def refuse(path):
      if os.path.basename(path) == 'a':
        raise PermissionError(13, 'Permission denied', path)
      return scandir(path)

    monkeypatch.setattr(os, 'scandir', refuse)
    with pytest.raises(sources.SourceError, match='/a: Permission denied'):
      sources.folder(tmp_path)


class TestConcatenate:

  def arrays(self, name, *values):
    return sources.from_arrays(
        [np.full((4, 4, 3), value, np.uint8) for value in values], name=name)

  def test_has_the_photographs_of_all_sources_as_often_as_asked(self):
    both = sources.concatenate(
        [self.arrays('a', 1, 2), self.arrays('b', 7)], repeats=[1, 3])
    assert both.name == 'a,3*b'
    assert [int(both.read(i)[0, 0, 0]) for i in range(both.size)] == [
        1, 2, 7, 7, 7]
    assert [both.label(i) for i in range(5)] == [
        'a[0]', 'a[1]', 'b[0]', 'b[0]', 'b[0]']
    assert [both.first(i) for i in range(5)] == [0, 1, 2, 2, 2]
    assert both.stamp(4) == both.stamp(2) != both.stamp(1)

  def test_nested_sources_know_the_first_of_their_repeats(self):
    inner = sources.concatenate([self.arrays('b', 7, 8)], repeats=[2])
    outer = sources.concatenate([self.arrays('a', 1), inner], repeats=[1, 2])
    assert [outer.first(i) for i in range(outer.size)] == [
        0, 1, 2, 1, 2, 1, 2, 1, 2]

  def test_a_repeated_photograph_is_decoded_once(self):
    reads = []

    def read(index):
      reads.append(index)
      return np.zeros((4, 4, 3), np.uint8)

    source = sources.Source(name='s', size=2, read=read, label=str)
    repeated = sources.in_memory(sources.concatenate([source], repeats=[3]))
    for index in range(6):
      repeated.read(index)
    assert reads == [0, 1]

  def test_a_repeated_grey_photograph_is_left_out_once(self):
    source = sources.concatenate([self.arrays('s', 9)], repeats=[3])
    screen = screening.Screen(source, min_chroma=2)
    assert [screen.read(i) for i in range(3)] == [None] * 3
    assert len(screen.exclusions) == 1

  @pytest.mark.parametrize('repeats', [[], [1], [1, 0], [1, 1, 1]])
  def test_refuses_repeats_that_do_not_fit(self, repeats):
    with pytest.raises(ValueError, match='2 sources cannot be repeated'):
      sources.concatenate([self.arrays('a', 1), self.arrays('b', 1)],
                          repeats=repeats)


class TestParse:

  def test_several_sources_are_joined_and_repeated(self, tmp_path):
    for name in ('a', 'b,c'):
      save(tmp_path / name / '1.png')
    text = f'folder:{tmp_path}/a,3*folder:{tmp_path}/b,c,bundled'
    source = sources.parse(text, train=False)
    assert source.name == text
    assert [source.label(i) for i in range(source.size)] == [
        '1.png', '1.png', '1.png', '1.png', 'chelsea.png', 'coffee.png']

  def test_refuses_no_repeats(self):
    with pytest.raises(sources.SourceError, match='at least once'):
      sources.parse('0*bundled', train=True)

  def test_names_the_unknown_one_of_several(self):
    with pytest.raises(sources.SourceError, match="'nonsense'"):
      sources.parse('nonsense,bundled', train=True)

  @pytest.mark.parametrize('spec', [
      '', 'bundle', 'bundled:train', 'folder', 'folder:', 'tfds', 'tfds:',
      'prepared:', 'imagenet2012', '/some/path'])
  def test_unknown_texts_are_errors_that_list_all_forms(self, spec):
    with pytest.raises(sources.SourceError) as caught:
      sources.parse(spec, train=True)
    assert repr(spec) in str(caught.value)
    assert all(known in str(caught.value) for known in sources.SPECS)
    assert '\n' not in str(caught.value)

  def test_a_folder_may_have_a_colon_in_its_name(self, tmp_path):
    save(tmp_path / 'a:b' / '1.png')
    assert sources.parse(f'folder:{tmp_path / "a:b"}', train=True).size == 1
