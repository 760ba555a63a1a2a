"""Embeddings are computed once, survive a kill, and are never mixed up."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image

from colorjax.data import (
  embedding_files,
  embeddings,
  pipeline,
  progress,
  sources,
)
from colorjax.data.screening import Screen
from colorjax.errors import UserError

E = 3
SIZE = 16
NETWORK = {'name': 'sums', 'weights': 'abc'}


def embed(batch):
  """A stand-in for a network: the mean of each channel of a photograph."""
  return batch['image'].astype(np.float32).mean((1, 2))


def flat_photos(count, first=0):
  """Photographs of a single color each, and their embeddings by `embed`."""
  colors = [(n + first, 2 * n, 255 - n) for n in range(count)]
  images = [np.full((20 + n % 3, 24, 3), c, np.uint8)
            for n, c in enumerate(colors)]
  return sources.from_arrays(images), np.array(colors, np.float32)


def compute(source, directory, *, embed=embed, screen=None, **options):
  options = {'network': NETWORK, 'channels': E, 'batch_size': 4,
             'image_size': SIZE, 'report': lambda line: None} | options
  return embeddings.compute(screen or Screen(source), embed,
                            directory=directory, **options)


class Counting:
  """An `embed` that counts the photographs it is called with."""

  def __init__(self):
    self.count = 0

  def __call__(self, batch):
    assert len(batch['image']) == 4  # the last batch is padded to full size
    self.count += int(batch['padding_mask'].sum())
    return embed(batch)


def test_each_photograph_is_embedded_once_in_its_own_row(tmp_path):
  source, expected = flat_photos(10)
  counting = Counting()
  for _ in range(2):
    table = compute(source, tmp_path, embed=counting)
    np.testing.assert_allclose(table, expected)
    assert table.dtype == np.float32
    assert not table.flags.writeable
  assert counting.count == 10


def test_squares_are_the_same_as_in_evaluation(tmp_path):
  rng = np.random.default_rng(0)
  source = sources.from_arrays(
      list(rng.integers(0, 256, (5, 20, 30, 3), np.uint8)))
  for fit in ('crop', 'squash'):
    with pipeline.eval_stream(source, batch_size=4, image_size=SIZE, fit=fit
                              ) as stream:
      expected = np.concatenate(
          [embed(batch)[batch['padding_mask'] > 0] for batch in stream])
    np.testing.assert_array_equal(compute(source, tmp_path, fit=fit), expected)
  assert len(list(tmp_path.iterdir())) == 2


def test_batches_carry_the_rows_of_their_photographs(tmp_path):
  source, expected = flat_photos(10)
  table = compute(source, tmp_path)
  spec = pipeline.TrainSpec(batch_size=4, image_size=8)
  with embeddings.attach(
      pipeline.train_stream(source, spec, 0, num_steps=5), table) as stream:
    batches = list(stream)
  assert len(batches) == 5
  for batch in batches:
    np.testing.assert_array_equal(
        batch['embedding'], expected[batch['index']])
    # The crop and the embedding belong to the same photograph.
    np.testing.assert_allclose(embed(batch), batch['embedding'], atol=1)
  assert len(np.unique(np.concatenate([b['index'] for b in batches]))) == 10


def test_padding_has_zeros(tmp_path):
  source, expected = flat_photos(5)
  table = compute(source, tmp_path)
  with embeddings.attach(pipeline.eval_stream(
      source, batch_size=4, image_size=8), table) as stream:
    first, last = stream
  np.testing.assert_array_equal(first['embedding'], expected[:4])
  assert first['embedding'].dtype == np.float32
  np.testing.assert_array_equal(last['embedding'][0], expected[4])
  assert (last['embedding'][1:] == 0).all()


def test_closing_ends_the_inner_stream():
  source, _ = flat_photos(4)
  before = threading.active_count()
  spec = pipeline.TrainSpec(batch_size=2, image_size=8)
  inner = pipeline.train_stream(source, spec, 0, engine='threads')
  stream = embeddings.attach(inner, np.zeros((4, E), np.float32))
  next(stream)
  assert threading.active_count() > before
  stream.close()
  assert threading.active_count() == before


def test_an_interrupted_run_is_continued(tmp_path):
  source, expected = flat_photos(10)

  def fail_late(batch):
    if batch['index'][0] >= 8:
      raise KeyboardInterrupt
    return embed(batch)

  with pytest.raises(KeyboardInterrupt):
    compute(source, tmp_path, embed=fail_late)
  counting = Counting()
  np.testing.assert_allclose(
      compute(source, tmp_path, embed=counting), expected)
  assert counting.count == 2


KILLED = """
import pathlib, sys, time
import numpy as np
import embeddings_test as problem

def slow(batch):
  time.sleep(0.05)  # slow enough to be killed halfway on a busy machine
  return problem.embed(batch)

problem.compute(problem.flat_photos(120)[0], sys.argv[1], embed=slow)
"""


def test_kill_at_any_moment(tmp_path):
  rng = np.random.default_rng(0)
  path = pathlib.Path(__file__).parent
  source, expected = flat_photos(120)
  counts = []
  for _ in range(3):
    process = subprocess.Popen(
        [sys.executable, '-c', KILLED, str(tmp_path)],
        env={**os.environ, 'PYTHONPATH': f'{path}{os.pathsep}{path.parent}'})
    goal = (counts[-1] if counts else 0) + 5
    while _num_done(tmp_path) < goal:
      assert process.poll() is None
      time.sleep(0.001)
    time.sleep(rng.uniform(0, 0.06))
    process.send_signal(signal.SIGKILL)
    process.wait()
    counts.append(_num_done(tmp_path))
  assert 5 <= counts[0] < counts[1] < counts[2] < 120
  # Every row that is marked as done is correct.
  folder, = tmp_path.iterdir()
  done = np.load(folder / embedding_files.DONE)
  rows = np.load(folder / embedding_files.ROWS)
  np.testing.assert_allclose(rows[done], expected[done])
  counting = Counting()
  np.testing.assert_allclose(
      compute(source, tmp_path, embed=counting), expected)
  assert counting.count == 120 - counts[2]


def _num_done(directory):
  for path in directory.glob(f'*/{embedding_files.DONE}'):
    return int(np.load(path).sum())
  return 0


def test_killed_while_the_files_are_created(tmp_path):
  source, expected = flat_photos(6)
  compute(source, tmp_path)
  folder, = tmp_path.iterdir()
  # First rows without marks, then marks without rows: all rows are computed
  # again.
  for name in (embedding_files.DONE, embedding_files.ROWS):
    (folder / name).unlink()
    (folder / name).with_suffix('.tmp').write_bytes(b'half a file')
    np.testing.assert_allclose(compute(source, tmp_path), expected)


def test_marks_do_not_outlive_the_rows(tmp_path, monkeypatch):
  source, expected = flat_photos(6)
  compute(source, tmp_path)
  folder, = tmp_path.iterdir()
  (folder / embedding_files.ROWS).unlink()
  create = embedding_files._create

  def die_after_rows(path, *args):
    if path.name == embedding_files.DONE:
      raise KeyboardInterrupt
    create(path, *args)

  with monkeypatch.context() as patch:
    patch.setattr(embedding_files, '_create', die_after_rows)
    with pytest.raises(KeyboardInterrupt):
      compute(source, tmp_path)
  np.testing.assert_allclose(compute(source, tmp_path), expected)


@pytest.mark.parametrize('change', [
    {'network': {**NETWORK, 'weights': 'abd'}},
    {'network': {**NETWORK, 'name': 'other'}},
    {'image_size': 8}, {'fit': 'squash'}, {'source': flat_photos(6, 1)[0]},
    {'source': flat_photos(7)[0]},
    {'source': sources.from_arrays(
        [np.full((20 + n % 3, 24, 3), (n, 2 * n, 255 - n), np.uint8)
         for n in range(6)], labels=list('abcdef'))},
], ids=['weights', 'name', 'size', 'fit', 'pixels', 'count', 'labels'])
def test_any_change_leads_to_another_folder(tmp_path, change):
  source, expected = flat_photos(6)
  compute(source, tmp_path)
  counting = Counting()
  change = dict(change)
  other = change.pop('source', source)
  compute(other, tmp_path, embed=counting, **change)
  assert counting.count == other.size
  assert len(list(tmp_path.iterdir())) == 2
  np.testing.assert_allclose(
      compute(source, tmp_path, embed=None), expected)


def test_the_location_of_the_photographs_does_not_matter(tmp_path):
  for name in ('here', 'there'):
    (tmp_path / name).mkdir()
    for n in range(3):
      Image.new('RGB', (9, 9), (n, n, n)).save(tmp_path / name / f'{n}.png')
  cache = tmp_path / 'cache'
  compute(sources.folder(tmp_path / 'here'), cache)
  compute(sources.folder(tmp_path / 'there'), cache, embed=None)
  record = json.loads(
      (next(cache.iterdir()) / embedding_files.RECORD).read_text())
  assert record['of'] == f'folder:{tmp_path / "here"}'
  assert record['network'] == NETWORK


def test_photographs_left_out_are_not_embedded(tmp_path):
  images = list(np.random.default_rng(0).integers(
      0, 256, (5, 9, 9, 3), np.uint8))
  images[2] = np.full((9, 9, 3), 90, np.uint8)  # a grey photograph
  source = sources.from_arrays(images)
  counting = Counting()
  screen = Screen(source, min_chroma=2)

  def stop_at_the_second_batch(batch):
    if batch['index'][0] == 4:
      raise KeyboardInterrupt
    return counting(batch)

  with pytest.raises(KeyboardInterrupt):
    compute(source, tmp_path, embed=stop_at_the_second_batch, screen=screen)
  assert counting.count == 3
  table = compute(source, tmp_path, embed=counting, screen=screen)
  assert counting.count == 4
  assert (table[2] == 0).all()
  assert (table[[0, 1, 3, 4]] > 0).all()
  # A later run without the screen computes only the missing row.
  table = compute(source, tmp_path, embed=counting)
  np.testing.assert_allclose(table[2], 90)
  assert counting.count == 5


def test_a_finished_cache_in_a_read_only_folder_is_used(
    tmp_path, monkeypatch):
  source, expected = flat_photos(4)
  compute(source, tmp_path)

  def refuse(*args, **options):
    raise PermissionError(13, 'Permission denied')

  monkeypatch.setattr(pathlib.Path, 'mkdir', refuse)
  np.testing.assert_allclose(compute(source, tmp_path), expected)
  with pytest.raises(
      UserError, match=r'Permission denied; .*embedding_dir=FOLDER'):
    compute(flat_photos(5)[0], tmp_path)


def test_a_file_in_the_way_is_named(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(
      UserError, match=rf'{tmp_path}/file/.*embedding_dir=FOLDER'):
    compute(flat_photos(4)[0], tmp_path / 'file')


@pytest.mark.parametrize('name', [embedding_files.ROWS, embedding_files.DONE])
@pytest.mark.parametrize('content', [b'', b'no numpy file', None])
def test_damaged_files_are_refused(tmp_path, name, content):
  source, _ = flat_photos(4)
  compute(source, tmp_path)
  path = next(tmp_path.iterdir()) / name
  path.write_bytes(path.read_bytes()[:-2] if content is None else content)
  with pytest.raises(UserError, match=f'{name} is damaged: delete its folder'):
    compute(source, tmp_path)
  np.save(path, np.zeros(7))
  with pytest.raises(UserError, match=r'holds float64 \[7\]'):
    compute(source, tmp_path)


def test_embeddings_that_are_not_finite_are_refused(tmp_path):
  source, _ = flat_photos(6)

  def broken(batch):
    vectors = embed(batch)
    vectors[batch['index'] == 5] = np.nan
    vectors[batch['padding_mask'] == 0] = np.inf  # padding is ignored
    return vectors

  with pytest.raises(UserError, match=r'arrays\[5\] is not finite'):
    compute(source, tmp_path, embed=broken)
  counting = Counting()
  compute(source, tmp_path, embed=counting)
  assert counting.count == 2


def test_two_processes_do_not_do_the_same_work(tmp_path):
  source, expected = flat_photos(12)
  counting, lines = Counting(), []
  tables = []

  def slow(batch):
    time.sleep(0.1)
    return counting(batch)

  def work():
    tables.append(compute(source, tmp_path, embed=slow, report=lines.append))

  threads = [threading.Thread(target=work) for _ in range(2)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert counting.count == 12
  assert any('waiting' in line for line in lines)
  for table in tables:
    np.testing.assert_allclose(table, expected)


def test_progress_reports_the_time_left(tmp_path, monkeypatch):
  clock = iter(np.arange(0.0, 1e3, 6.0))
  monkeypatch.setattr(progress.time, 'monotonic', lambda: next(clock))
  lines = []
  compute(flat_photos(20)[0], tmp_path, report=lines.append)
  assert 'computing 20 embeddings' in lines[0]
  assert str(tmp_path) in lines[0]
  # 4 photographs in 6 seconds; lines are at least 10 seconds apart.
  assert lines[1] == (
      'arrays: 8 of 20 embeddings, 0.7 per second, 0.3 minutes left')
  assert lines[-1] == 'arrays: 20 embeddings in all, 36 s'
  assert len(lines) == 4


def test_fingerprints_depend_on_names_values_shapes_and_dtypes():
  a, b = np.ones((2, 2)), np.arange(4.0)
  same = embeddings.fingerprint({'params': {'b': b, 'a': a}, 'c': {'d': a}})
  assert embeddings.fingerprint(
      {'c': {'d': a}, 'params': {'a': a.copy(), 'b': b.copy()}}) == same
  for other in ({'a': a, 'b': b + 1e-12}, {'a': b, 'b': a},
                {'a': a, 'b': b.reshape(2, 2)}, {'a': a, 'e': b},
                {'a': a, 'b': b.view(int)}, {'a': a}):
    assert embeddings.fingerprint({'params': other, 'c': {'d': a}}) != same
  assert len(same) == 64


class TestBeside:

  def test_folders(self, tmp_path):
    photos = tmp_path / 'photos'
    photos.mkdir()
    sibling = tmp_path / 'photos.embeddings'
    for text in (f'folder:{photos}', f'folder:{photos}/', f'prepared:{photos}',
                 f'prepared:{photos}:train[:90%]', f'prepared:{photos}:test'):
      assert embeddings.beside(text) == sibling

  def test_folders_with_colons(self, tmp_path):
    photos = tmp_path / 'a:b'
    photos.mkdir()
    assert embeddings.beside(f'prepared:{photos}:train') == (
        tmp_path / 'a:b.embeddings')

  def test_tfds(self, monkeypatch):
    monkeypatch.setenv('TFDS_DATA_DIR', '/sets')
    for data_dir, expected in ((None, '/sets'), ('/mine', '/mine')):
      assert embeddings.beside('tfds:mnist:train', data_dir=data_dir) == (
          pathlib.Path(expected) / 'embeddings')

  def test_bundled_photographs_have_no_folder(self):
    assert embeddings.beside('bundled') is None


def test_is_writable(tmp_path):
  assert embeddings.is_writable(tmp_path / 'new' / 'folder')
  (tmp_path / 'file').write_text('')
  assert not embeddings.is_writable(tmp_path / 'file')


def test_a_read_only_folder_is_not_writable(tmp_path):
  # This holds even for root, whom the permissions would not stop.
  photos = tmp_path / 'photos'
  photos.mkdir()
  photos.chmod(0o555)
  try:
    assert not embeddings.is_writable(photos)
    assert not embeddings.is_writable(photos / 'train.embeddings' / 'deeper')
    assert not list(photos.iterdir())
  finally:
    photos.chmod(0o755)
  assert embeddings.is_writable(photos / 'train.embeddings')
