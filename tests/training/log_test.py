"""The logs of a run: metrics.jsonl, TensorBoard, lines on the terminal."""

import errno
import io
import json
import os

import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto import event_pb2

from colorjax.errors import UserError
from colorjax.training import console, log


def _events(directory):
  """Events of the newest file, read by TensorBoard's record format."""
  path = max(directory.iterdir(), key=lambda p: p.name)
  content, at, events = path.read_bytes(), 0, []
  while at < len(content):
    length = int.from_bytes(content[at:at + 8], 'little')
    events.append(event_pb2.Event.FromString(
        content[at + 12:at + 12 + length]))
    at += 12 + length + 4
  return events


def test_lines_are_json_and_flushed(tmp_path):
  metrics = log.MetricsLog(tmp_path / 'metrics.jsonl', step=0)
  metrics.write(5, 'train', {'loss': 1 / 3, 'psnr': float('inf')})
  text = (tmp_path / 'metrics.jsonl').read_text()
  assert json.loads(text) == {
      'step': 5, 'split': 'train', 'loss': 1 / 3, 'psnr': None}
  metrics.close()


@pytest.mark.parametrize(('step', 'kept'), [(0, 0), (5, 1), (9, 1), (10, 3)])
@pytest.mark.parametrize('rest', [
    '', '{"step": 15, "split"', '{"step": 15, "split": "train"}', '\0\0\0\0',
    '[1]\n', 'text\n{"step": 1}\n'])
def test_resuming_drops_later_and_broken_lines(tmp_path, step, kept, rest):
  lines = ['{"step": 5, "split": "train"}\n',
           '{"step": 10, "split": "train"}\n',
           '{"step": 10, "split": "validation"}\n',
           '{"step": 11, "split": "train"}\n']
  path = tmp_path / 'metrics.jsonl'
  path.write_text(''.join(lines) + rest)
  metrics = log.MetricsLog(path, step=step)
  metrics.write(99, 'train', {})
  metrics.close()
  assert path.read_text() == ''.join(lines[:kept]) + (
      '{"step": 99, "split": "train"}\n')


def test_a_line_without_its_end_is_dropped_even_if_it_parses(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  path.write_text('{"step": 5}\n{"step": 6}')
  log.MetricsLog(path, step=10).close()
  assert path.read_text() == '{"step": 5}\n'


def test_an_unwritable_file_is_named(tmp_path):
  (tmp_path / 'metrics.jsonl').mkdir()
  with pytest.raises(UserError, match=r'cannot write .*metrics\.jsonl: Is a d'):
    log.MetricsLog(tmp_path / 'metrics.jsonl', step=0)


@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='Linux only')
def test_a_full_disk_is_named(tmp_path, monkeypatch):
  metrics = log.MetricsLog(tmp_path / 'metrics.jsonl', step=0)
  metrics.close()
  full = io.TextIOWrapper(io.FileIO('/dev/full', 'w'))
  monkeypatch.setattr(metrics, '_file', full)
  with pytest.raises(UserError, match=r'metrics\.jsonl: No space left on dev'):
    metrics.write(1, 'train', {})
  full.close()


def test_scalars_and_pictures_reach_tensorboard(tmp_path):
  board = log.TensorBoard(tmp_path, step=0)
  board.scalars(7, 'train', {'loss': 0.5})
  board.images(8, {'sheet': np.full((4, 6, 3), 200, np.uint8)})
  _, _, scalar, image = _events(tmp_path)  # flushed: readable while it runs
  assert (scalar.step, scalar.summary.value[0].tag,
          scalar.summary.value[0].simple_value) == (7, 'train/loss', 0.5)
  picture = image.summary.value[0].image
  assert (image.step, picture.height, picture.width) == (8, 4, 6)
  pixels = np.asarray(Image.open(io.BytesIO(picture.encoded_image_string)))
  np.testing.assert_array_equal(pixels, 200)
  board.close()


def test_resuming_purges_later_steps_of_tensorboard(tmp_path):
  # Within a second, and yet different files; 0 if killed before a checkpoint.
  for number, step in enumerate((0, 20, 0), 1):
    log.TensorBoard(tmp_path, step=step).close()
    assert len(list(tmp_path.iterdir())) == number
    start = _events(tmp_path)[-1]
    assert start.session_log.status == event_pb2.SessionLog.START
    assert start.step == step + 1


def test_a_full_disk_stops_tensorboard_with_a_line(tmp_path, monkeypatch):
  board = log.TensorBoard(tmp_path, step=0)

  def full():
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  with monkeypatch.context() as patch:
    patch.setattr(board._writer, 'flush', full)
    with pytest.raises(UserError, match='No space left on device'):
      board.scalars(1, 'train', {'loss': 1.0})
  board.close()


class _Clock:
  """A clock that the test sets."""

  def __init__(self, monkeypatch):
    self.now = 100.0
    monkeypatch.setattr('time.monotonic', lambda: self.now)


def test_without_a_terminal_a_line_is_printed_now_and_then(monkeypatch, capsys):
  clock = _Clock(monkeypatch)
  progress = console.Progress(step=0, num_steps=1000, seconds=30)
  for step in range(1, 1001):
    clock.now += 0.125
    progress.advance(step)
    progress.show(step, {'psnr': 20.0, 'loss': 1.0, 'best/0': 1.0})
  progress.close()
  lines = capsys.readouterr().err.splitlines()
  assert len(lines) == 6  # four times after 30 s, and the first and last step
  assert lines[0] == 'step 1/1000, loss 1, psnr 20'
  assert lines[1] == 'step 241/1000, 01:34 left, loss 1, psnr 20'


def test_speed_leaves_out_compilation_and_evaluation(
    monkeypatch, capsys, tmp_path):
  clock = _Clock(monkeypatch)
  with log.RunLog(tmp_path, step=0, num_steps=100) as run_log:
    clock.now += 60  # compilation
    run_log.advance(1, 32)
    for step in (2, 3):
      clock.now += 2
      run_log.advance(step, 32)
    with run_log.paused():
      clock.now += 1000
    run_log.train(3, {'loss': 1.0})
    assert run_log.stepping_seconds == 4
    for step in range(4, 24):
      clock.now += 1
      run_log.advance(step, 32)
    assert run_log.stepping_seconds == 24
    assert run_log.seconds_per_step == 1, 'that of the last steps'
  speeds = {value.tag: value.simple_value
            for event in _events(tmp_path / 'tensorboard')
            for value in event.summary.value}
  assert speeds == {'train/loss': 1.0, 'train/images_per_second': 16.0}
  assert 'images_per_second' not in (tmp_path / 'metrics.jsonl').read_text()
  assert 'images_per_second 16' in capsys.readouterr().err


def test_evaluations_are_shown(capsys, tmp_path):
  with log.RunLog(tmp_path, step=0, num_steps=100) as run_log:
    run_log.evaluation(10, 'validation', {'loss': 0.25})
  assert 'step 10 validation: loss 0.25' in capsys.readouterr().err
