"""What an evaluation leaves on disk, damaged in ways that disks and people do.

Whole and plainly broken files are in evaluation_test.py.
"""

import json

import numpy as np
import pytest

from colorjax.errors import UserError
from colorjax.evaluation import catalogue, protocol, result


@pytest.fixture
def written(tmp_path):
  statistics = {'psnr': np.random.default_rng(0).normal(20, 3, 500)}
  found = result.EvaluationResult(protocol.Record(
      protocol=protocol.folder(16, 'crop'), data='folder:x',
      photographs=tuple(map(str, range(500))), pixels='00', num_proposals=8,
      num_samples=8, num_draws=19, seed=0, density='', left_out=(),
      num_grey=0, near_duplicates=None, drops_near_duplicates=False,
      judged='x', weights='', networks={}), statistics,
                        catalogue.summarize(statistics))
  result.write(tmp_path, found)
  return tmp_path, found


def test_one_byte_changed_on_the_disk(written):
  folder, _ = written
  path = folder / result.STATISTICS_FILE
  content = path.read_bytes()
  for place in range(60, len(content) - 200, 97):
    path.write_bytes(content[:place] + bytes([content[place] ^ 0xff])
                     + content[place + 1:])
    with pytest.raises(UserError, match=r'statistics\.npz'):
      result.load(folder)


def test_compressed_bytes_that_make_no_sense(written):
  folder, _ = written
  path = folder / result.STATISTICS_FILE
  content = path.read_bytes()
  path.write_bytes(content[:60] + b'\xff' * 200 + content[260:])
  with pytest.raises(UserError, match=r'statistics\.npz cannot be read'):
    result.load(folder)


def test_statistics_of_no_photograph(written):
  folder, _ = written
  for value in (np.float64(3), np.zeros(499)):
    (folder / result.STATISTICS_FILE).write_bytes(result.pack({'psnr': value}))
    with pytest.raises(UserError, match='psnr is not of the 500 photographs'):
      result.load(folder)


def test_a_record_without_photographs(written):
  folder, _ = written
  path = folder / result.PROTOCOL_FILE
  path.write_text(json.dumps(
      json.loads(path.read_text()) | {'photographs': None}))
  with pytest.raises(UserError, match='no record of an evaluation'):
    result.load(folder)


def test_metrics_do_not_vouch_for_files_that_are_being_replaced(
    written, monkeypatch):
  folder, found = written

  def full(file):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr('os.fsync', full)
  with pytest.raises(UserError, match=r'cannot be written: No space left'):
    result.write(folder, found)
  with pytest.raises(UserError, match=r'holds no metrics\.json'):
    result.load(folder)
