"""The files of an evaluation, intact and damaged."""

import json

import numpy as np
import pytest
from example_results import make_result

from colorjax.errors import UserError
from colorjax.evaluation import result


@pytest.fixture
def written(tmp_path):
  statistics = {'psnr': np.random.default_rng(0).normal(20, 3, 500)}
  found = make_result(statistics, photographs=tuple(map(str, range(500))))
  result.write(tmp_path, found)
  return tmp_path, found


def test_load_returns_what_was_written(tmp_path):
  statistics = {'psnr': np.array([np.inf, 20.0]),
                'auc_rebalanced': np.ones((2, 2, 313))}
  written = make_result(statistics, photographs=('a', 'b'))
  result.write(tmp_path, written)
  read = result.load(tmp_path)
  assert read.record == written.record
  assert read.summary['psnr'] == written.summary['psnr']
  assert read.summary['psnr'].num_undefined == 1
  assert read.summary['auc_rebalanced'] == written.summary['auc_rebalanced']
  np.testing.assert_array_equal(read.statistics['psnr'], [np.inf, 20.0])
  assert (tmp_path / result.PHOTOGRAPHS_FILE).read_text() == (
      'photograph,psnr\na,inf\nb,20\n')


@pytest.mark.parametrize(('file', 'content', 'message'), [
    (result.METRICS_FILE, None, 'has no metrics.json'),
    (result.METRICS_FILE, '[]', 'metrics.json is not a JSON object'),
    (result.METRICS_FILE, '{"psnr": 3}', 'not a metrics file'),
    (result.PROTOCOL_FILE, '{', 'protocol.json: is not valid JSON'),
    (result.PROTOCOL_FILE, '{"data": ""}', 'not a record of an evaluation'),
    (result.STATISTICS_FILE, 'x', 'statistics.npz cannot be read')])
def test_damaged_results_are_rejected(tmp_path, file, content, message):
  statistics = {'psnr': np.array([19.0, 20.0])}
  result.write(tmp_path, make_result(statistics, photographs=('a', 'b')))
  if content is None:
    (tmp_path / file).unlink()
  else:
    (tmp_path / file).write_text(content)
  with pytest.raises(UserError, match=message):
    result.load(tmp_path)


def test_one_changed_byte_is_detected(written):
  folder, _ = written
  path = folder / result.STATISTICS_FILE
  content = path.read_bytes()
  for place in range(60, len(content) - 200, 97):
    path.write_bytes(content[:place] + bytes([content[place] ^ 0xff])
                     + content[place + 1:])
    with pytest.raises(UserError, match=r'statistics\.npz'):
      result.load(folder)


def test_invalid_compressed_bytes_are_detected(written):
  folder, _ = written
  path = folder / result.STATISTICS_FILE
  content = path.read_bytes()
  path.write_bytes(content[:60] + b'\xff' * 200 + content[260:])
  with pytest.raises(UserError, match=r'statistics\.npz cannot be read'):
    result.load(folder)


def test_statistics_of_another_number_of_photographs(written):
  folder, _ = written
  for value in (np.float64(3), np.zeros(499)):
    (folder / result.STATISTICS_FILE).write_bytes(result.pack({'psnr': value}))
    with pytest.raises(UserError, match='psnr does not have a row for '
                       'each of the 500 photographs'):
      result.load(folder)


def test_a_record_without_photographs(written):
  folder, _ = written
  path = folder / result.PROTOCOL_FILE
  path.write_text(json.dumps(
      json.loads(path.read_text()) | {'photographs': None}))
  with pytest.raises(UserError, match='not a record of an evaluation'):
    result.load(folder)


def test_an_interrupted_write_leaves_no_metrics_file(
    written, monkeypatch):
  folder, found = written

  def full(file):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr('os.fsync', full)
  with pytest.raises(UserError, match=r'cannot be written: No space left'):
    result.write(folder, found)
  with pytest.raises(UserError, match=r'has no metrics\.json'):
    result.load(folder)
