import collections
import contextlib
import pathlib
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import scipy.stats
from PIL import Image

from colorjax.data import augment, order, pipeline
from colorjax.data.augment import Augment
from colorjax.data.source import Source, from_arrays

SPEC = pipeline.TrainSpec(batch_size=4, image_size=16)


def photographs(count, *, seed=0):
  rng = np.random.default_rng(seed)
  return [rng.integers(0, 256, (20 + i % 9, 30 - i % 9, 3), np.uint8)
          for i in range(count)]


def counting_source(count=7):
  images, reads = photographs(count), collections.Counter()

  def read(index):
    reads[index] += 1
    return images[index]

  return Source(name='counted', size=count, read=read, label=str), reads


def same(one, other):
  assert one.keys() == other.keys() == {'image', 'padding_mask', 'index'}
  for key in one:
    assert one[key].dtype == other[key].dtype
    np.testing.assert_array_equal(one[key], other[key])


def joined(batches):
  return {key: np.concatenate([b[key] for b in batches]) for key in batches[0]}


class TestOrder:

  @pytest.mark.parametrize('size', [1, 2, 7, 1000])
  def test_every_epoch_is_a_permutation(self, size):
    for epoch in range(3):
      np.testing.assert_array_equal(
          np.sort(order.epoch_order(3, epoch, size)), np.arange(size))

  def test_epochs_and_seeds_differ(self):
    orders = {tuple(order.epoch_order(seed, epoch, 50))
              for seed in range(4) for epoch in range(4)}
    assert len(orders) == 16

  def test_all_orders_are_equally_likely(self):
    counts = collections.Counter(
        tuple(order.epoch_order(0, epoch, 4)) for epoch in range(4800))
    assert len(counts) == 24
    assert scipy.stats.chisquare(list(counts.values())).pvalue > 1e-3

  def test_lookup_is_the_concatenation_of_epochs(self):
    index_of = order.index_lookup(5, 7)
    expected = np.concatenate([order.epoch_order(5, e, 7) for e in range(4)])
    # In reverse order, since earlier calls must not matter.
    got = [index_of(n) for n in reversed(range(28))][::-1]
    np.testing.assert_array_equal(got, expected)

  def test_uniforms_are_uniform_and_independent(self):
    draws = np.stack([order.uniforms(1, n, 3) for n in range(2000)])
    assert draws.min() >= 0
    assert draws.max() < 1
    for column in draws.T:
      assert scipy.stats.kstest(column, 'uniform').pvalue > 1e-3
    correlation = np.corrcoef(draws[:-1].T, draws[1:].T)
    assert np.abs(correlation - np.eye(6)).max() < 0.1

  def test_order_and_augmentation_share_no_numbers(self):
    words = np.argsort(order.uniforms(0, 0, 50), kind='stable')
    assert (words != order.epoch_order(0, 0, 50)).any()


class TestAugment:

  def boxes(self, height, width, settings, count=2000):
    return np.array([
        augment.crop_box(height, width, settings, order.uniforms(0, n, 40))
        for n in range(count)])

  def test_boxes_keep_to_scale_and_ratio(self):
    settings = Augment(scale=(0.2, 0.6), ratio=(1 / 2, 3 / 2))
    top, left, rows, columns = self.boxes(300, 400, settings).T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + rows <= 300).all()
    assert (left + columns <= 400).all()
    area = rows * columns / (300 * 400)
    # The tolerance of 1 % is for rounding to whole pixels.
    assert area.min() > 0.2 * 0.99
    assert area.max() < 0.6 * 1.01
    assert (columns / rows).min() > 1 / 2 * 0.99
    assert (columns / rows).max() < 3 / 2 * 1.01

  def test_ratio_is_log_uniform_and_area_uniform(self):
    # The boxes are so small that every first attempt fits.
    settings = Augment(scale=(0.01, 0.02), ratio=(1 / 4, 4))
    _, _, rows, columns = self.boxes(4000, 4000, settings).T
    log_ratio = np.log(columns / rows) / np.log(4)
    assert scipy.stats.kstest(
        (log_ratio + 1) / 2, 'uniform').pvalue > 1e-3
    area = rows * columns / 4000**2
    assert scipy.stats.kstest((area - 0.01) / 0.01, 'uniform').pvalue > 1e-3

  def test_position_is_uniform_and_reaches_the_borders(self):
    settings = Augment(scale=(0.25, 0.25), ratio=(1, 1))
    top, left, rows, columns = self.boxes(8, 8, settings, count=3000).T
    assert set(rows) == set(columns) == {4}
    for offset in top, left:
      counts = np.bincount(offset, minlength=5)
      assert len(counts) == 5
      assert scipy.stats.chisquare(counts).pvalue > 1e-3

  @pytest.mark.parametrize(('height', 'width', 'box'), [
      (10, 1000, (0, 493, 10, 13)),  # 13 / 10 is the widest allowed ratio
      (1000, 10, (493, 0, 13, 10)),
      (1, 1, (0, 0, 1, 1)),
  ])
  def test_falls_back_to_the_middle(self, height, width, box):
    settings = Augment(scale=(1, 1), ratio=(3 / 4, 4 / 3))
    assert augment.crop_box(height, width, settings, np.zeros(40)) == box

  def test_crop_is_what_pillow_cuts_out(self):
    pixels = photographs(1)[0]
    for example in range(20):
      draws = order.uniforms(0, example, augment.NUM_DRAWS)
      top, left, rows, columns = augment.crop_box(
          *pixels.shape[:2], Augment(), draws[1:])
      expected = Image.fromarray(pixels).crop(
          (left, top, left + columns, top + rows)).resize((9, 9))
      if draws[0] < 0.5:
        expected = expected.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
      view = augment.random_view(*pixels.shape[:2], Augment(), draws)
      np.testing.assert_array_equal(augment.cut(pixels, view, 9), expected)

  @pytest.mark.parametrize('flip', [0.0, 0.3, 1.0])
  def test_flips_as_often_as_asked(self, flip):
    ramp = np.repeat(np.arange(0, 200, 10, np.uint8)[None, :, None], 20, 0)
    ramp = np.repeat(ramp, 3, -1)
    settings = Augment(flip=flip)
    flipped = 0
    for example in range(500):
      view = augment.random_view(
          20, 20, settings, order.uniforms(0, example, augment.NUM_DRAWS))
      square = augment.cut(ramp, view, 4)
      flipped += square[0, 0, 0] > square[0, -1, 0]
    assert scipy.stats.binomtest(int(flipped), 500, flip).pvalue > 1e-3

  def test_shrinking_averages(self):
    # Without antialiasing, some of the one-pixel stripes would survive.
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 200
    small = augment.resize(stripes, 8, 8)
    assert np.abs(small.astype(int) - 100).max() <= 5

  def test_fit_crop_takes_the_middle_and_squash_the_whole(self):
    wide = np.zeros((4, 12, 3), np.uint8)
    wide[:, :4, 0] = wide[:, 4:8, 1] = wide[:, 8:, 2] = 255
    for pixels in wide, wide.swapaxes(0, 1):
      cropped = augment.fit_square(pixels, 6, 'crop')
      assert (cropped == (0, 255, 0)).all()
      squashed = augment.fit_square(pixels, 12, 'squash')
      assert squashed.shape == (12, 12, 3)
      np.testing.assert_allclose(
          squashed.mean((0, 1)), [85, 85, 85], atol=3)

  def test_refuses_an_unknown_fit(self):
    with pytest.raises(ValueError, match=r"fit must be .* got 'stretch'"):
      augment.fit_square(photographs(1)[0], 8, 'stretch')

  @pytest.mark.parametrize('settings', [
      {'scale': (0, 1)}, {'scale': (0.5, 0.2)}, {'scale': (0.5, 1.5)},
      {'ratio': (2, 1)}, {'ratio': (0, 1)}, {'flip': 1.5}])
  def test_refuses_settings_out_of_range(self, settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
      Augment(**settings)


class TestTrainBatches:

  def test_every_photograph_occurs_once_per_epoch(self):
    source, _ = counting_source(7)
    steps = [pipeline.train_batch(source, SPEC, 0, step) for step in range(14)]
    indices = np.concatenate([b['index'] for b in steps]).reshape(8, 7)
    np.testing.assert_array_equal(
        np.sort(indices, 1), np.tile(np.arange(7), (8, 1)))
    assert all(b['padding_mask'].all() for b in steps)

  def test_image_and_index_belong_together(self):
    colors = np.arange(0, 250, 10, np.uint8)
    source = from_arrays([np.full((9, 9, 3), c) for c in colors])
    batch = pipeline.train_batch(source, SPEC, 0, 3)
    expected = np.broadcast_to(
        colors[batch['index']][:, None, None, None], (4, 16, 16, 3))
    np.testing.assert_array_equal(batch['image'], expected)

  def test_is_a_function_of_seed_and_step(self):
    source = from_arrays(photographs(7))
    batches = [pipeline.train_batch(source, SPEC, seed, step)
               for seed in range(2) for step in range(4)]
    assert len({b['image'].tobytes() for b in batches}) == 8
    same(batches[5], pipeline.train_batch(source, SPEC, 1, 1))

  @pytest.mark.parametrize('engine', ['threads', 'tf.data'])
  @pytest.mark.parametrize('num_threads', [1, 3])
  def test_engines_give_train_batches(self, engine, num_threads):
    source = from_arrays(photographs(7))
    with pipeline.train_stream(
        source, SPEC, 2, start_step=5, num_steps=6, engine=engine,
        num_threads=num_threads) as stream:
      batches = list(stream)
    assert len(batches) == 6
    for step, batch in enumerate(batches, 5):
      same(batch, pipeline.train_batch(source, SPEC, 2, step))

  @pytest.mark.parametrize('engine', ['threads', 'tf.data'])
  def test_skipped_steps_are_not_read(self, engine):
    source, reads = counting_source(10_000)
    with pipeline.train_stream(source, SPEC, 0, start_step=10**9,
                               engine=engine, prefetch=1) as stream:
      batch = next(stream)
    assert sum(reads.values()) <= 4 * 4 + 2
    same(batch, pipeline.train_batch(source, SPEC, 0, 10**9))

  @pytest.mark.parametrize('shards', [1, 2, 4])
  def test_shards_make_up_the_batch(self, shards):
    source = from_arrays(photographs(7))
    for step in 0, 3:
      parts = [pipeline.train_batch(source, SPEC, 0, step, shard=(s, shards))
               for s in range(shards)]
      assert all(len(p['padding_mask']) == 4 // shards for p in parts)
      same(joined(parts), pipeline.train_batch(source, SPEC, 0, step))

  def test_prefetch_is_bounded(self):
    source, reads = counting_source(1000)
    with pipeline.train_stream(
        source, SPEC, 0, engine='threads', prefetch=2) as stream:
      next(stream)
      time.sleep(0.3)
      assert sum(reads.values()) <= 4 * 4

  @pytest.mark.parametrize(('arguments', 'message'), [
      ({'seed': -1}, 'seed and step'),
      ({'start_step': -1}, 'seed and step'),
      ({'shard': (2, 2)}, 'no shard 2 of 2'),
      ({'shard': (0, 3)}, 'batch_size 4 cannot be split evenly over 3'),
      ({'engine': 'grain'}, "engine must be one of .* got 'grain'"),
  ])
  def test_refuses_invalid_arguments_at_once(self, arguments, message):
    source = from_arrays(photographs(2))
    with pytest.raises(ValueError, match=message):
      pipeline.train_stream(source, SPEC, **{'seed': 0, **arguments})


class TestEvalBatches:

  @pytest.mark.parametrize('engine', ['threads', 'tf.data'])
  @pytest.mark.parametrize(('size', 'batch_size'), [(7, 4), (8, 4), (1, 4)])
  def test_every_photograph_once_in_order(self, engine, size, batch_size):
    images = photographs(size)
    with pipeline.eval_stream(
        from_arrays(images), batch_size=batch_size, image_size=8, fit='squash',
        engine=engine) as stream:
      batches = list(stream)
    assert len(batches) == pipeline.num_eval_batches(size, batch_size)
    assert all(len(b['padding_mask']) == batch_size for b in batches)
    everything = joined(batches)
    np.testing.assert_array_equal(everything['index'][:size], np.arange(size))
    np.testing.assert_array_equal(everything['padding_mask'][:size], 1)
    for image, pixels in zip(everything['image'], images, strict=False):
      np.testing.assert_array_equal(
          image, Image.fromarray(pixels).resize((8, 8)))
    for key, padding in ('index', -1), ('padding_mask', 0), ('image', 0):
      np.testing.assert_array_equal(everything[key][size:], padding)

  def test_shards_make_up_the_batches(self):
    source = from_arrays(photographs(7))

    def batches(shard):
      with pipeline.eval_stream(source, batch_size=4, image_size=8,
                                shard=shard) as stream:
        return list(stream)

    parts = zip(batches((0, 2)), batches((1, 2)), strict=True)
    for whole, shards in zip(batches((0, 1)), parts, strict=True):
      same(joined(shards), whole)

  def test_counts(self):
    assert [pipeline.num_eval_batches(n, 4) for n in (1, 4, 5, 8)] == [
        1, 1, 2, 2]

  def test_refuses_an_unknown_fit(self):
    with pytest.raises(ValueError, match=r"fit must be .* got 'stretch'"):
      pipeline.eval_stream(from_arrays(photographs(1)), batch_size=1,
                           image_size=8, fit='stretch')


def data_threads():
  return [thread for thread in threading.enumerate()
          if thread.name.startswith('colorjax-data')]


class TestStreams:

  @pytest.mark.parametrize('engine', ['threads', 'tf.data'])
  def test_raises_what_reading_raises_at_the_batch_concerned(self, engine):
    order_of = order.epoch_order(0, 0, 50)
    error = RuntimeError('the disk is gone')

    def read(index):
      if index == order_of[9]:
        raise error
      return np.zeros((4, 4, 3), np.uint8)

    source = Source(name='failing', size=50, read=read, label=str)
    with pipeline.train_stream(source, SPEC, 0, engine=engine) as stream:
      next(stream)
      next(stream)
      with pytest.raises(RuntimeError, match='the disk is gone') as caught:
        next(stream)
      assert caught.value is error
    assert not data_threads()

  def test_closing_ends_the_threads_without_finishing_the_work(self):
    reads = []

    def read(index):
      reads.append(index)
      time.sleep(0.02)
      return np.zeros((4, 4, 3), np.uint8)

    source = Source(name='slow', size=5, read=read, label=str)
    spec = pipeline.TrainSpec(batch_size=200, image_size=4)
    stream = pipeline.train_stream(
        source, spec, 0, engine='threads', num_threads=4)
    next(stream)
    start = time.monotonic()
    stream.close()
    # The queued work would take three seconds.
    assert time.monotonic() - start < 1.5
    assert not data_threads()
    assert len(reads) < 500
    with pytest.raises(StopIteration):
      next(stream)

  def test_a_garbage_collected_stream_ends_its_threads(self):
    stream = pipeline.train_stream(
        from_arrays(photographs(3)), SPEC, 0, engine='threads')
    next(stream)
    assert data_threads()
    del stream
    assert not data_threads()


SCRIPT = '''
import sys, time
import numpy as np
from colorjax.data import pipeline, sources
folder, engine = sys.argv[1:]
for source in (sources.from_arrays(np.zeros((5, 8, 8, 3), np.uint8)),
               sources.parse(f'folder:{folder}', train=True),
               sources.parse('bundled', train=True)):
  spec = pipeline.TrainSpec(batch_size=64, image_size=8)
  stream = pipeline.train_stream(source, spec, 0, engine=engine)
  next(stream)
if engine != 'tf.data':
  assert 'tensorflow' not in sys.modules
  assert 'tensorflow_datasets' not in sys.modules
slow = sources.Source(
    name='slow', size=5, label=str,
    read=lambda i: time.sleep(0.01) or np.zeros((8, 8, 3), np.uint8))
slow_stream = pipeline.train_stream(slow, spec, 0, engine=engine)
next(slow_stream)
print('reading', flush=True)
'''


class TestProcesses:

  @pytest.fixture
  def start(self, tmp_path):
    Image.fromarray(photographs(1)[0]).save(tmp_path / 'photo.png')
    with contextlib.ExitStack() as stack:
      def start(engine, more=''):
        process = stack.enter_context(subprocess.Popen(
            [sys.executable, '-c', SCRIPT + more, str(tmp_path), engine],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            cwd=pathlib.Path(__file__).parents[1]))
        stack.callback(process.kill)
        assert process.stdout.readline() == 'reading\n', process.stderr.read()
        return process
      yield start

  @pytest.mark.parametrize('engine', ['auto', 'tf.data'])
  def test_ends_although_no_stream_was_closed(self, start, engine):
    process = start(engine)
    ended = time.monotonic()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert 'Traceback' not in errors
    assert time.monotonic() - ended < 30

  def test_control_c_ends_at_once(self, start):
    process = start('threads', '''
with slow_stream:
  for batch in slow_stream:
    pass
''')
    time.sleep(0.3)
    ended = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert time.monotonic() - ended < 20
    assert errors.rstrip().endswith('KeyboardInterrupt')
