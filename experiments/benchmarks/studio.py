"""Measures how long the studio takes to show a change.

    python -m experiments.benchmarks.studio [--repeats=20]

A studio is started in a separate process, with the model that comes first. A
photograph of scikit-image is uploaded at each size, and each kind of change is
made several times, each time another one. A time is that of the whole round
trip: the request, the picture, and the answer as JPEG.
"""

import io
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from absl import flags

from colorjax.errors import UserError
from experiments import script

_REPEATS = flags.DEFINE_integer(
    'repeats', 20, 'Number of changes of each kind.', lower_bound=1)
_SIZES = flags.DEFINE_list(
    'sizes', ['512x512', '4000x3000'], 'Sizes of the photograph, in pixels.')
_CHECKPOINT = flags.DEFINE_string(
    'checkpoint', None, 'A trained method, in place of the shipped model.')

_FILES = 3  # downloads; they take seconds at the larger size


def photograph(width: int, height: int) -> bytes:
  """Makes a JPEG of a size."""
  import skimage.data
  from PIL import Image

  out = io.BytesIO()
  Image.fromarray(skimage.data.coffee()).convert('L').resize(
      (width, height)).save(out, 'JPEG', quality=92)
  return out.getvalue()


def changes(width: int, height: int) -> dict[str, Callable[[int], Any]]:
  """The kinds of changes: the i-th choices of each."""
  def at(i):
    return [width * (i % 7 + 0.5) // 7, height * (i % 5 + 0.5) // 5]

  return {
      'saturation': lambda i: {'saturation': 1 + i / 1000},
      'region, segment': lambda i: {'regions': [
          {'coloring': {'strength': 0.5}, 'at': at(i)}]},
      'region, brush': lambda i: {'regions': [
          {'coloring': {'strength': 0.5}, 'points': [at(i), at(i + 1)],
           'width': width / 10}]},
      'hint': lambda i: {'hints': [
          {'color': f'#{i % 256:02x}8040', 'points': [at(i)],
           'width': width / 50}]},
      'mask': lambda i: {'mask': {'edits': [
          {'grey': True, 'points': [at(i)], 'width': width / 8}]}},
  }


class _Client:
  """Asks a studio."""

  def __init__(self, address: str):
    self._address = address
    self._session = ''
    self._session = json.loads(self.ask('session', b''))['session']

  def ask(self, path: str, body: Any = None) -> bytes:
    headers = {'X-Session': self._session,
               'Content-Type': 'application/octet-stream'}
    if isinstance(body, dict):
      body = json.dumps(body).encode()
      headers['Content-Type'] = 'application/json'
    with urllib.request.urlopen(urllib.request.Request(
        f'{self._address}api/{path}', body, headers)) as answer:
      return answer.read()


def measure(client: _Client, width: int, height: int, repeats: int
            ) -> dict[str, list[float]]:
  """Seconds of each round trip, by the kind of change."""
  started = time.perf_counter()
  name = json.loads(client.ask('photos', photograph(width, height)))['id']
  seconds = {'upload': [time.perf_counter() - started]}

  def timed(path, body):
    start = time.perf_counter()
    client.ask(f'photos/{name}/{path}', body)
    return time.perf_counter() - start

  for kind, choices in changes(width, height).items():
    timed('picture', {'choices': choices(repeats)})  # compiles
    seconds[kind] = [timed('picture', {'choices': choices(i)})
                     for i in range(repeats)]
  seconds['colors at a pixel'] = [
      timed('colors', {'x': i % width, 'y': i % height})
      for i in range(repeats)]
  seconds['download'] = [timed('file', {}) for _ in range(_FILES)]
  return seconds


def main(argv: Sequence[str]) -> int:
  """Prints a table with the median and the 95th percentile."""
  del argv
  sizes = []
  for text in _SIZES.value:
    across, _, down = text.partition('x')
    if not (across.isdecimal() and down.isdecimal()):
      raise UserError(f'sizes={text}: write WIDTHxHEIGHT')
    sizes.append((int(across), int(down)))
  command = [sys.executable, '-m', 'experiments.studio', '--port=0']
  if _CHECKPOINT.value:
    command.append(f'--checkpoint={_CHECKPOINT.value}')
  with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as studio:
    try:
      assert studio.stdout is not None
      line = studio.stdout.readline()
      if not line:
        raise UserError('the studio did not start; see its error above')
      client = _Client(line.split()[-1])
      while not json.loads(client.ask('status'))['is_ready']:
        time.sleep(0.1)
      print(f'{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}\n\n'
            '| photograph | change | p50, s | p95, s | n |\n'
            '|---|---|--:|--:|--:|')
      for width, height in sizes:
        for kind, times in measure(
            client, width, height, _REPEATS.value).items():
          low, high = np.percentile(times, [50, 95])
          print(f'| {width} x {height} | {kind} | {low:.2f} | {high:.2f} | '
                f'{len(times)} |', flush=True)
    finally:
      studio.terminate()
  return 0


if __name__ == '__main__':
  script.run(main)
