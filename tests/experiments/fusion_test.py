"""The fusion experiments: row titles of reports, and errors."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from colorjax.errors import UserError
from colorjax.runs import embedding

ROOT = pathlib.Path(__file__).parents[2]


def test_top_classes_in_order_of_probability():
  names = ['tench', 'great_white_shark', 'cock', 'hen', 'jay', 'kite']
  lines = embedding.top_classes(
      np.array([[0.02, 0.5, 0.3, 0.08, 0.04, 0.06],
                [0.9, 0.02, 0.02, 0.02, 0.02, 0.02]]), names)
  assert lines == [
      'great white shark 50 %, cock 30 %, hen 8 %, kite 6 %, jay 4 %',
      'tench 90 %, great white shark 2 %, cock 2 %, hen 2 %, jay 2 %']


class _Method:

  def embed(self, variables, lightness):
    # Bright photographs are of class 7, dark ones of class 3.
    bright = (lightness.mean((1, 2, 3)) > 50).astype(float)
    logits = np.zeros((len(lightness), 1000), np.float32)
    logits[:, 7], logits[:, 3] = 20 * bright, 20 * (1 - bright)
    return logits


def test_class_titles_of_a_report(tmp_path):
  path = tmp_path / 'imagenet_class_index.json'
  path.write_text(json.dumps(
      {str(k): [f'n{k:08}', f'class_{k}'] for k in range(1000)}))
  images = np.zeros((2, 4, 4, 3), np.uint8)
  images[1] = 255
  titles = embedding.class_titles('logits', path)(_Method(), {}, images)
  assert [title.split(',')[0] for title in titles] == [
      'class 3 100 %', 'class 7 100 %']
  assert embedding.class_titles('features', path) is None
  assert embedding.class_titles('logits', None) is None


def test_titles_need_a_file_of_names(tmp_path):
  path = tmp_path / 'names.json'
  path.write_text('{}')
  with pytest.raises(UserError):
    embedding.class_titles('logits', path)


@pytest.mark.parametrize(('name', 'flag', 'message'), [
    ('inception', '--embedding_size=74', 'sees at least 75'),
    ('xception', '--image_size=60', 'divisible by 8'),
    ('xception', '--prior=no.json', '--prior=no.json: there is no such file'),
    ('xception', '--backbone_weights=no.h5', 'no.h5: no such file'),
])
def test_bad_input_is_refused_in_a_line(tmp_path, name, flag, message):
  done = subprocess.run(
      [sys.executable, '-m', f'experiments.{name}_fusion',
       '--embedding_size=80', '--backbone_weights=random', flag,
       f'--workdir={tmp_path / "run"}'],
      capture_output=True, text=True, cwd=ROOT, check=False)
  assert done.returncode == 2
  assert message in done.stderr
  assert len(done.stderr.strip().splitlines()) == 1
