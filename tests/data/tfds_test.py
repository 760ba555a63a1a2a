import io
import os
import pathlib
import shutil
import tarfile

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from colorjax import photo
from colorjax.data import pipeline, screening, sources, tfrecord

COUNTS = {'train': 7, 'test': 4}
SPEC = pipeline.TrainSpec(batch_size=4, image_size=16)


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))


def encoded(number, *, form='png'):
  data = io.BytesIO()
  size = (20 + number, 30 - number)
  Image.new('RGB', size, (200, 10 * number, 40)).save(data, form)
  return data.getvalue()


def prepare(root, file_format='tfrecord', features=None, counts=None):
  """Writes a TFDS data set of two splits with three photographs per file."""
  folder = root / 'shapes' / '1.0.0'
  folder.mkdir(parents=True)
  info = tfds.core.DatasetInfo(
      builder=tfds.core.DatasetIdentity(
          name='shapes', version=tfds.core.Version('1.0.0'),
          data_dir=str(folder), module_name='test'),
      features=features or tfds.features.FeaturesDict({
          'image': tfds.features.Image(shape=(None, None, 3)),
          'mask': tfds.features.Image(shape=(None, None, 1)),
          'label': tfds.features.ClassLabel(num_classes=3),
          'file_name': tfds.features.Text()}))
  writer = tfds.core.SequentialWriter(info, max_examples_per_shard=3,
                                      file_format=file_format)
  counts = counts or COUNTS
  writer.initialize_splits(list(counts))
  number = 0
  for split, count in counts.items():
    examples = []
    for _ in range(count):
      example = {'image': io.BytesIO(encoded(number)), 'label': number % 3,
                 'mask': np.zeros((2, 2, 1), np.uint8),
                 'file_name': f'photo {number}.png'}
      examples.append({key: example[key] for key in info.features})
      number += 1
    writer.add_examples({split: examples})
  writer.close_all()
  return folder


@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
  return prepare(tmp_path_factory.mktemp('tfds'))


@pytest.fixture
def own_shapes(shapes, tmp_path):
  """A copy that a test may damage."""
  return pathlib.Path(shutil.copytree(shapes, tmp_path / 'shapes' / '1.0.0'))


def numbers(source):
  """The numbers of the photographs in `prepare`, read from their colors."""
  return [int(source.read(i)[0, 0, 1]) // 10 for i in range(source.size)]


class TestPreparedFolder:

  def test_agrees_with_tfds(self, shapes):
    source = sources.parse(f'prepared:{shapes}', train=True)
    examples = list(tfds.as_numpy(tfds.builder_from_directory(shapes)
                                  .as_dataset('train', shuffle_files=False)))
    assert source.size == len(examples) == 7
    for i, example in enumerate(examples):
      np.testing.assert_array_equal(source.read(i), example['image'])
      assert source.label(i) == example['file_name'].decode()

  @pytest.mark.parametrize(('split', 'expected'), [
      ('train', range(7)), ('test', range(7, 11)), ('train[2:5]', [2, 3, 4]),
      ('train[-2:]', [5, 6]), ('train[:50%]', [0, 1, 2, 3]),
      ('train[6:]+test[:1]', [6, 7]), ('all', range(11))])
  def test_splits_are_those_of_tfds(self, shapes, split, expected):
    source = sources.parse(f'prepared:{shapes}:{split}', train=True)
    assert numbers(source) == list(expected)

  def test_default_splits(self, shapes, tmp_path):
    assert numbers(sources.parse(f'prepared:{shapes}', train=False)) == [
        7, 8, 9, 10]
    folder = prepare(tmp_path, counts={'train': 2, 'test': 2, 'validation': 2})
    assert numbers(sources.parse(f'prepared:{folder}', train=False)) == [4, 5]

  def test_a_folder_may_have_a_colon_in_its_name(self, shapes, tmp_path):
    folder = shutil.copytree(shapes, tmp_path / 'shapes:v1')
    for spec, size in (f'{folder}', 7), (f'{folder}:test', 4):
      assert sources.parse(f'prepared:{spec}', train=True).size == size

  def test_a_copy_has_the_same_stamps_but_for_times(self, shapes, tmp_path):
    def stamp(folder):
      return sources.parse(f'prepared:{folder}', train=True).stamp(0)

    folder = shutil.copytree(shapes, tmp_path / 'copy')
    description = folder / 'dataset_info.json'
    os.utime(description, ns=(0, 0))
    assert stamp(folder).content == stamp(shapes).content
    assert stamp(folder).modified != stamp(shapes).modified
    description.write_text(description.read_text() + '\n')
    assert stamp(folder).content != stamp(shapes).content
    assert len(stamp(folder).content) < 100  # of each of a million photographs

  def test_array_record_gives_the_same_photographs(self, shapes, tmp_path):
    source = sources.parse(
        f'prepared:{prepare(tmp_path, "array_record")}', train=True)
    other = sources.parse(f'prepared:{shapes}', train=True)
    assert numbers(source) == numbers(other)
    assert source.label(3) == other.label(3) == 'photo 3.png'

  def test_through_the_pipeline_with_both_engines(self, shapes):
    source = sources.parse(f'prepared:{shapes}', train=True)
    assert source.prefers_tf_data
    for engine in 'auto', 'threads':
      with pipeline.train_stream(
          source, SPEC, 0, num_steps=5, engine=engine, num_threads=4) as stream:
        for step, batch in enumerate(stream):
          expected = pipeline.train_batch(source, SPEC, 0, step)
          for key in expected:
            np.testing.assert_array_equal(batch[key], expected[key])

  @pytest.mark.parametrize(('spec', 'message'), [
      ('{shapes}:valid', 'no split valid; it has train, test and parts'),
      ('{shapes}:train[:3', 'the folder .*train.* does not exist'),
      ('{shapes}/none', 'the folder .*none does not exist'),
      ('{shapes}/..', r'no readable dataset_info\.json; use .*/1\.0\.0'),
  ])
  def test_mistakes_are_one_line(self, shapes, spec, message):
    with pytest.raises(sources.SourceError, match=message) as caught:
      sources.parse('prepared:' + spec.format(shapes=shapes), train=True)
    assert '\n' not in str(caught.value)

  @pytest.mark.parametrize(('features', 'message'), [
      ({'one': tfds.features.Image(), 'two': tfds.features.Image()},
       r'several photographs in each example \(one, two\)'),
      ({'digit': tfds.features.Image(shape=(None, None, 1))},
       r'no color photograph among its features \(digit\)'),
  ])
  def test_needs_one_color_photograph_per_example(
      self, tmp_path, monkeypatch, features, message):
    shapes = prepare(tmp_path)
    builder = tfds.builder_from_directory(shapes)
    monkeypatch.setattr(
        type(builder.info), 'features', tfds.features.FeaturesDict(features))
    with pytest.raises(sources.SourceError, match=message):
      sources.parse(f'prepared:{shapes}', train=True)

  def test_the_evaluation_split_must_exist(self, tmp_path):
    folder = prepare(tmp_path, counts={'train': 2})
    with pytest.raises(sources.SourceError, match=(
        r'no split validation or test; it has train: .*:train\[90%:\]')):
      sources.parse(f'prepared:{folder}', train=False)


class TestRecords:

  def files(self, shapes):
    return sorted(shapes.glob('*train.tfrecord*'))

  def test_records_are_those_of_tensorflow(self, shapes):
    # Imported here, so that collecting the tests does not wait for TensorFlow.
    import tensorflow as tf
    for path in self.files(shapes):
      expected = list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
      count = len(expected)
      records = tfrecord.Records([tfrecord.Part(str(path), 0, count, count)])
      assert [records[i] for i in range(len(records))] == expected
      for beyond in -1, count:
        with pytest.raises(IndexError):
          records[beyond]

  def test_parts_are_numbered_consecutively(self, shapes):
    path = str(self.files(shapes)[0])
    count = tfds.builder_from_directory(shapes).info.splits[
        'train'].shard_lengths[0]
    whole = tfrecord.Records([tfrecord.Part(path, 0, count, count)])
    parts = tfrecord.Records([tfrecord.Part(path, count - 1, 1, count),
                              tfrecord.Part(path, 0, 0, count),
                              tfrecord.Part(path, 0, 1, count)])
    assert [parts[0], parts[1]] == [whole[count - 1], whole[0]]
    assert len(parts) == 2

  def test_files_are_indexed_once_and_again_when_they_change(
      self, own_shapes, tmp_path, monkeypatch):
    found = []
    find = tfrecord.record_bounds
    monkeypatch.setattr(tfrecord, 'record_bounds',
                        lambda *file: found.append(file) or find(*file))
    spec = f'prepared:{own_shapes}'
    for _ in range(2):
      assert numbers(sources.parse(spec, train=True)) == list(range(7))
    files = self.files(own_shapes)
    assert len(found) == len(files) > 1
    files[0].touch()
    assert numbers(sources.parse(spec, train=True)) == list(range(7))
    assert len(found) == 2 * len(files)
    other = tmp_path / 'other.npy'
    np.save(other, np.arange(3))
    whole = other.read_bytes()
    for times, damaged in enumerate((whole[:50], whole), 3):
      for cache in (tmp_path / 'cache').rglob('*.npy'):
        cache.write_bytes(damaged)
      assert numbers(sources.parse(spec, train=True)) == list(range(7))
      assert len(found) == times * len(files)

  def test_a_cache_that_cannot_be_written_is_not_an_error(
      self, shapes, tmp_path, monkeypatch):
    (tmp_path / 'file').write_text('')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'file'))
    assert sources.parse(f'prepared:{shapes}', train=True).size == 7

  def test_a_flipped_byte_is_one_unreadable_photograph(self, own_shapes):
    path = self.files(own_shapes)[0]
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(data)
    source = sources.parse(f'prepared:{own_shapes}', train=True)
    with pytest.raises(photo.UnreadablePhoto, match=(
        r':train\[0\]: damaged: record 0 of .*00000.* wrong checksum')):
      source.read(0)
    assert source.label(0) == 'train[0]'
    screen = screening.Screen(source, on_bad_image='skip')
    with pipeline.eval_stream(screen, batch_size=7, image_size=8) as stream:
      np.testing.assert_array_equal(
          next(stream)['index'], [-1, 1, 2, 3, 4, 5, 6])
    assert screen.exclusions.by_index()[0].label == 'train[0]'

  @pytest.mark.parametrize(('damage', 'message'), [
      (lambda data: data[:-1], 'cut short in record'),
      (lambda data: b'', 'cut short: it holds 0 of'),
      (lambda data: data + b'more', 'holds more than'),
      (lambda data: b'\x01' + data[1:], 'damaged at byte 0, record 0'),
  ])
  def test_a_damaged_file_is_named_at_once(self, own_shapes, damage, message):
    path = self.files(own_shapes)[-1]
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(sources.SourceError, match=message) as caught:
      sources.parse(f'prepared:{own_shapes}', train=True)
    assert path.name in str(caught.value)
    assert '\n' not in str(caught.value)

  def test_a_missing_file_is_named_at_once(self, own_shapes):
    path = self.files(own_shapes)[-1]
    path.unlink()
    with pytest.raises(sources.SourceError, match=path.name):
      sources.parse(f'prepared:{own_shapes}', train=True)

  def test_a_file_that_changes_after_opening_is_noticed(self, own_shapes):
    source = sources.parse(f'prepared:{own_shapes}', train=True)
    path = self.files(own_shapes)[0]
    path.write_bytes(path.read_bytes()[5:])
    with pytest.raises(photo.UnreadablePhoto, match='has changed'):
      source.read(0)

  def test_bad_pictures_name_their_record_and_file(self, tmp_path, monkeypatch):
    monkeypatch.setattr(f'{__name__}.encoded', lambda number: b'no picture')
    source = sources.parse(f'prepared:{prepare(tmp_path)}', train=True)
    with pytest.raises(photo.UnreadablePhoto,
                       match=r':train\[2\] photo 2\.png: '):
      source.read(2)


class TestNames:

  @pytest.mark.parametrize('name', [
      'imagenet2012', 'places365_small', 'oxford_flowers102'])
  @pytest.mark.parametrize('train', [True, False])
  def test_mocked_data_sets_train_and_evaluate(self, name, train):
    with tfds.testing.mock_data(num_examples=5):
      source = sources.parse(f'tfds:{name}', train=train)
      assert source.name == f'tfds:{name}:{"train" if train else "validation"}'
      assert source.size == 5
      batch = pipeline.train_batch(source, SPEC, 0, 0)
      assert set(batch['index']) < set(range(5))
      with pipeline.eval_stream(source, batch_size=3, image_size=8) as stream:
        batches = list(stream)
    assert [b['padding_mask'].sum() for b in batches] == [3, 2]
    assert source.label(0)
    assert '\n' not in source.label(0)

  def test_imagenet_prepared_from_archives(self, tmp_path):
    manual = tmp_path / 'manual'
    manual.mkdir()
    synsets = {'n01440764': [0, 1], 'n01443537': [2], 'n15075141': [3, 4]}
    with tarfile.open(manual / 'ILSVRC2012_img_train.tar', 'w') as train:
      for synset, photographs in synsets.items():
        inner = io.BytesIO()
        with tarfile.open(fileobj=inner, mode='w') as archive:
          for number in photographs:
            add(archive, f'{synset}_{number}.JPEG', jpeg(number))
        add(train, f'{synset}.tar', inner.getvalue())
    with tarfile.open(manual / 'ILSVRC2012_img_val.tar', 'w') as archive:
      for number in 5, 6, 7:
        add(archive, f'ILSVRC2012_val_{number:08}.JPEG', jpeg(number))
    with pytest.raises(sources.SourceError, match=(
        r'not prepared in .* downloads nothing: .*manual.*_and_prepare\(')):
      sources.parse('tfds:imagenet2012', train=True, data_dir=tmp_path)

    tfds.builder('imagenet2012', data_dir=tmp_path).download_and_prepare(
        download_config=tfds.download.DownloadConfig(manual_dir=manual))

    for train, expected in (True, range(5)), (False, range(5, 8)):
      source = sources.parse('tfds:imagenet2012', train=train,
                             data_dir=tmp_path)
      photographs = {source.label(i): source.read(i)
                     for i in range(source.size)}
      assert len(photographs) == source.size == len(expected)
      for name, pixels in photographs.items():
        number = int(name.removesuffix('.JPEG').rsplit('_', 1)[1])
        assert number in expected
        assert pixels.shape == (30 - number, 20 + number, 3)
        np.testing.assert_allclose(
            pixels.mean((0, 1)), (200, 10 * number, 40), atol=3)

  @pytest.mark.parametrize(('spec', 'message'), [
      ('imagnet2012', 'no data set imagnet2012; did you mean imagenet2012'),
      ('imagenet2012/tiny', 'BuilderConfig tiny not found'),
      ('what is this', 'what is this'),
      (':train', 'must have the form tfds:NAME'),
  ])
  def test_mistakes_are_one_line(self, tmp_path, spec, message):
    with pytest.raises(sources.SourceError, match=message) as caught:
      sources.parse(f'tfds:{spec}', train=True, data_dir=tmp_path)
    assert '\n' not in str(caught.value)

  @pytest.mark.parametrize(('spec', 'expected'), [
      ('shapes', range(7)), ('shapes:1.0.0', range(7)),
      ('shapes:train[:2]', [0, 1]), ('shapes:1.0.0:test[:2]', [7, 8])])
  def test_versions_and_splits(self, shapes, spec, expected):
    source = sources.parse(f'tfds:{spec}', train=True,
                           data_dir=shapes.parents[1])
    assert numbers(source) == list(expected)


def jpeg(number):
  return encoded(number, form='jpeg')


def add(archive, name, data):
  info = tarfile.TarInfo(name)
  info.size = len(data)
  archive.addfile(info, io.BytesIO(data))
