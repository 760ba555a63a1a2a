"""The studio's API: pictures, downloads equal to `colorize`, and limits."""

import io
import json
import pathlib
import re
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib

import numpy as np
import PIL.Image
import pytest
import serving
import skimage.data
import tifffile
import tiny_method

from colorjax import composing, full_size, inference, photo
from colorjax.choices import parse
from colorjax.runs import colorize
from colorjax.studio import sessions

pytestmark = pytest.mark.usefixtures('compiles_quickly')

LIMITS = sessions.Limits(
    file_bytes=300_000, pixels=40_000, photos=3, sessions=5, preview=96,
    stall_seconds=1.0)


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  path = tmp_path_factory.mktemp('run') / 'run'
  tiny_method.write_run(path, image_size=16, num_components=8)
  return path


@pytest.fixture(scope='module')
def studio(run, compiles_quickly, tmp_path_factory):
  del compiles_quickly
  running = serving.Running(
      {'tiny': run}, tmp_path_factory.mktemp('studio') / 'files', limits=LIMITS)
  while not running.json('api/status')['is_ready']:
    time.sleep(0.05)
  yield running
  running.stop()


def encoded(kind='JPEG', size=(120, 90), **options):
  exif = PIL.Image.Exif()
  exif[0x010F] = 'Camera'
  out = io.BytesIO()
  PIL.Image.fromarray(skimage.data.coffee()).resize(size).save(
      out, kind, exif=exif, **options)
  return out.getvalue()


def deep():
  rng = np.random.default_rng(0)
  pixels = rng.integers(0, 65536, (40, 50)).astype(np.uint16)
  return photo.encode('deep.tiff', pixels)


@pytest.fixture
def session(studio):
  return studio.session()


@pytest.fixture
def opened(studio, session):
  return f'api/photos/{studio.upload(session, encoded())["id"]}'


def picture(studio, session, path, **choices):
  status, headers, body = studio.ask(
      f'{path}/picture', {'choices': choices}, session=session)
  assert status == 200, body
  assert headers['content-type'] == 'image/jpeg'
  return np.asarray(PIL.Image.open(io.BytesIO(body))).astype(int)


HINT = {'color': '#0000ff', 'points': [[30, 20], [60, 20]], 'width': 6}


@pytest.mark.parametrize('case', [
    'index', 'seed', 'saturation', 'hints', 'reference', 'mask', 'deep', 'jpg'])
def test_a_download_is_what_colorize_writes(
    case, studio, session, run, tmp_path):
  data = deep() if case == 'deep' else encoded()
  path = tmp_path / ('photo.tiff' if case == 'deep' else 'photo.jpg')
  path.write_bytes(data)
  options, choices, index = {'file_format': 'same'}, {}, 1
  body = {'format': 'same'}
  if case == 'seed':
    options['seed'] = choices['seed'] = 3
  elif case == 'saturation':
    options['options'] = {'saturation': 0.7}
    body['choices'] = {'saturation': 0.7}
  elif case == 'hints':
    (tmp_path / 'hints.json').write_text(json.dumps([HINT]))
    options['hints'] = tmp_path / 'hints.json'
    body['choices'] = {'hints': [HINT]}
  elif case == 'reference':
    other = encoded('PNG', (70, 50))
    (tmp_path / 'reference.png').write_bytes(other)
    options['reference'] = tmp_path / 'reference.png'
    body['choices'] = studio.json('api/references', other, session=session)
  elif case == 'mask':
    body['choices'] = {'mask': {'edits': [
        {'at': [5, 5]}, {'points': [[100, 70]], 'width': 20}]}}
    given = photo.read(path)
    region = composing.region_of(
        composing.Subject(given, longest=96, sizes=[16]).grid,
        parse(body['choices'], 120, 90), full_size.lightness_of(given.pixels))
    assert 0.01 < region.mean() < 0.99
    (tmp_path / 'mask.png').write_bytes(photo.encode(
        'mask.png', region.astype(np.uint8) * np.uint8(255)))
    options['mask'] = tmp_path / 'mask.png'
  elif case == 'jpg':
    index = 7
  body['choices'] = body.get('choices', {}) | {
      'coloring': {'index': index, **choices}}
  colorize.colorize_all(run, path, tmp_path / 'out', num_proposals=8, **options)
  expected = (tmp_path / 'out' / f'photo.{index}{path.suffix}').read_bytes()
  name = studio.upload(session, data)['id']
  status, headers, got = studio.ask(
      f'api/photos/{name}/file', body, session=session)
  assert status == 200, got
  assert got == expected
  assert headers['content-disposition'] == (
      f'attachment; filename="coloring{path.suffix}"')
  if case == 'deep':
    assert photo.read_bytes(got, 'x').pixels.dtype == np.uint16
  else:
    assert PIL.Image.open(io.BytesIO(got)).getexif()[0x010F] == 'Camera'


def test_sixteen_bits_of_an_eight_bit_photograph(studio, session, opened):
  _, _, body = studio.ask(f'{opened}/file', {'format': 'png', 'bits': 16},
                          session=session)
  got = photo.read_bytes(body, 'x.png').pixels
  assert got.dtype == np.uint16
  assert (got % 257 != 0).mean() > 0.5


def test_pictures_and_maps(studio, session, opened):
  first = picture(studio, session, opened)
  assert first.shape == (72, 96, 3)
  other = picture(studio, session, opened, coloring={'index': 4})
  assert np.abs(first - other).mean() > 20
  both = picture(studio, session, opened, regions=[
      {'coloring': {'index': 4}, 'points': [[20, 0], [20, 89]], 'width': 40}])
  assert np.abs(both - other)[:, :20].mean() < 3
  assert np.abs(both - first)[:, -40:].mean() < 3
  found = studio.json(f'{opened}/colorings', {}, session=session)['colorings']
  assert [one['probability'] for one in found] == [
      0.5 ** i for i in range(1, 9)]
  assert [one['coloring']['index'] for one in found] == list(range(8))
  drawn = studio.json(f'{opened}/colorings', {'seed': 2}, session=session)
  assert {one['probability'] for one in drawn['colorings']} == {None}
  _, _, data = studio.ask(f'{opened}/uncertainty', {}, session=session)
  levels = np.asarray(PIL.Image.open(io.BytesIO(data)))
  assert levels.shape == (72, 96)
  lightness = full_size.lightness_of(first.astype(np.uint8))
  assert np.corrcoef(levels.ravel(), lightness.ravel())[0, 1] > 0.8
  _, _, data = studio.ask(f'{opened}/segments?size=large', session=session)
  assert PIL.Image.open(io.BytesIO(data)).size == (120, 90)
  _, _, data = studio.ask(f'{opened}/original?longest=48',
                          session=session)
  assert PIL.Image.open(io.BytesIO(data)).size == (48, 36)


def test_swatches_are_the_colors_of_the_proposals(studio, session, opened):
  found = studio.json(f'{opened}/colors', {'x': 60, 'y': 20}, session=session)
  shares = [one['probability'] for one in found['swatches']]
  assert shares == sorted(shares, reverse=True)
  assert shares[0] == pytest.approx(0.5)
  labs = [skimage.color.rgb2lab(np.array(
      PIL.ImageColor.getrgb(one['color'])) / 255) for one in found['swatches']]
  np.testing.assert_allclose(
      [lab[0] for lab in labs], found['lightness'], atol=0.6)
  hues = np.degrees([np.arctan2(lab[2], lab[1]) for lab in labs])
  np.testing.assert_allclose(hues[:3], [0, 45, 90], atol=6)


def test_sessions_never_see_each_other(studio, session, opened):
  other = studio.session()
  assert studio.json('api/photos', session=other) == {'photos': []}
  for path, body in ((f'{opened}/original', None), (f'{opened}/picture', {}),
                     (f'{opened}/file', {}), (f'{opened}/segments', None)):
    assert studio.ask(path, body, session=other)[0] == 404
    assert studio.ask(path, body)[0] == 401
    assert studio.ask(path, body, session='x' * 43)[0] == 401
  assert studio.ask(opened, method='DELETE', session=other)[0] == 404
  assert studio.ask(f'{opened}/original', session=session)[0] == 200
  assert studio.ask('api/session', method='DELETE', session=session)[0] == 204
  assert studio.ask(f'{opened}/original', session=session)[0] == 401


def test_files_go_when_photographs_and_sessions_do(studio, session):
  before = set(studio.folder.iterdir())
  first, _ = (studio.upload(session, encoded()) for _ in range(2))
  assert len(set(studio.folder.iterdir()) - before) == 2
  studio.ask(f'api/photos/{first["id"]}', method='DELETE', session=session)
  assert len(set(studio.folder.iterdir()) - before) == 1
  studio.ask('api/session', method='DELETE', session=session)
  assert set(studio.folder.iterdir()) == before


def png_header(width, height):
  def chunk(kind, data):
    return (struct.pack('>I', len(data)) + kind + data
            + struct.pack('>I', zlib.crc32(kind + data)))
  return (b'\x89PNG\r\n\x1a\n'
          + chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 8, 0, 0, 0,
                                       0))
          + chunk(b'IDAT', zlib.compress(bytes(1000))) + chunk(b'IEND', b''))


def tiff_of_large_tiles():
  """10 x 10 pixels of 16 bits in a tile of 60000 x 60000."""
  out = io.BytesIO()
  tifffile.imwrite(out, np.zeros((16, 16), np.uint16), tile=(16, 16),
                   compression='zlib')
  data = bytearray(out.getvalue())
  with tifffile.TiffFile(io.BytesIO(bytes(data))) as tiff:
    for name in ('TileWidth', 'TileLength'):
      tag = tiff.pages[0].tags[name]
      code = {3: 'H', 4: 'I'}[int(tag.dtype)]
      data[tag.valueoffset:tag.valueoffset + struct.calcsize(code)] = (
          struct.pack(tiff.byteorder + code, 60000))
  return bytes(data)


@pytest.mark.parametrize(('data', 'status', 'message'), [
    (b'', 422, 'empty'),
    (b'hello', 422, 'not a photograph'),
    (b'<svg xmlns="http://www.w3.org/2000/svg"/>', 422, 'not a photograph'),
    (encoded()[:2000], 422, 'damaged'),
    (png_header(50_000, 50_000), 422, 'too large'),
    (png_header(300, 200), 422, 'too large: 300x200 is more than 40000'),
    (tiff_of_large_tiles(), 422, 'the photograph'),
    (bytes(300_001), 413, 'larger than 0 MB'),
], ids=lambda value: str(value)[:12] if isinstance(value, str) else None)
def test_uploads_that_are_refused(data, status, message, studio, session):
  files = set(studio.folder.iterdir())
  got, headers, body = studio.ask('api/photos', data, session=session)
  assert got == status
  assert headers['content-type'] == 'application/json'
  assert message in json.loads(body)['error']
  assert set(studio.folder.iterdir()) == files
  assert studio.json('api/photos', session=session) == {'photos': []}


def test_the_advice_for_a_format_that_is_not_read(studio, session):
  _, _, body = studio.ask('api/photos?ending=.AVIF', b'hello', session=session)
  assert 'avifdec' in json.loads(body)['error']
  _, _, body = studio.ask('api/photos?ending=/etc/passwd', b'hello',
                          session=session)
  assert 'passwd' not in json.loads(body)['error']


def test_other_content_types_are_refused(studio, session, opened):
  for kind in ('text/plain', 'application/x-www-form-urlencoded',
               'multipart/form-data; boundary=x'):
    assert studio.ask('api/photos', encoded(), session=session,
                      Content_Type=kind)[0] == 415
    assert studio.ask(f'{opened}/picture', {}, session=session,
                      Content_Type=kind)[0] == 415


def test_photographs_and_sessions_are_bounded(studio, session):
  for _ in range(3):
    studio.upload(session, encoded())
  status, _, body = studio.ask('api/photos', encoded(), session=session)
  assert status == 429
  assert 'at most 3' in json.loads(body)['error']
  others = [studio.session() for _ in range(5)]
  # The session that was used longest ago has ended.
  assert studio.ask('api/photos', session=session)[0] == 401
  assert studio.ask('api/photos', session=others[0])[0] == 200


@pytest.mark.parametrize(('body', 'status'), [
    (b'{', 400), (b'[]', 422), (b'"x"', 422), (b'{"choices": []}', 422),
    (b'{"choices": {"saturation": NaN}}', 400),
    (b'{"choices": {"saturation": 1e999}}', 422),
    (b'[' * 100_000, 400), (b'\xff', 400),
    (b' ' * 4_000_001, 413), (b'{"surprise": 1}', 422),
    (b'{"choices": {"coloring": {"index": 8}}}', 422),
    (b'{"choices": {"model": "../x"}}', 422),
    (b'{"choices": {"reference": "0"}}', 409),
    (b'{"longest": "x"}', 422),
], ids=range(14))
def test_choices_that_are_refused(body, status, studio, session, opened):
  got, _, answer = studio.ask(f'{opened}/picture', body, session=session,
                              Content_Type='application/json')
  assert got == status, answer
  assert json.loads(answer)['error']


@pytest.mark.parametrize('path', [
    'colorjax', '../setup.cfg', '%2e%2e/setup.cfg', 'index.html', 'main.py',
    'static/main.js', 'api', 'api/photos/x/y', '..%2f..%2fetc/passwd',
    'README.md'])
def test_there_is_nothing_else(path, studio):
  assert studio.ask(path)[0] == 404


def test_an_upload_that_stops_is_given_up(studio, session):
  with socket.create_connection(('127.0.0.1', studio.port)) as connection:
    connection.sendall(
        b'POST /api/photos HTTP/1.1\r\nHost: localhost\r\nX-Session: '
        + session.encode() + b'\r\nContent-Type: image/png\r\n'
        b'Content-Length: 1000\r\n\r\nabc')
    connection.settimeout(20)
    assert b'408' in connection.recv(100)
  assert not [file for file in studio.folder.iterdir()
              if file.stat().st_size == 3]


def test_one_session_is_answered_in_order(studio, session, opened):
  """30 changes at once: each gets its own picture."""
  expected = {i: picture(studio, session, opened, coloring={'index': i})
              for i in range(8)}
  wrong = []

  def change(i):
    got = picture(studio, session, opened, coloring={'index': i % 8})
    if (got != expected[i % 8]).any():
      wrong.append(i)

  threads = [threading.Thread(target=change, args=(i,)) for i in range(30)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert wrong == []


def test_the_example_of_the_readme(studio, tmp_path):
  text = (pathlib.Path(composing.__file__).parent / 'studio' / 'README.md'
          ).read_text()
  (code,) = re.findall(r'```python\n(.*?)```', text, re.S)
  assert len(code.splitlines()) <= 16
  assert 'http://127.0.0.1:8000/' in code
  (tmp_path / 'photo.jpg').write_bytes(encoded())
  (tmp_path / 'example.py').write_text(
      code.replace('http://127.0.0.1:8000/', studio.address))
  subprocess.run([sys.executable, 'example.py'], cwd=tmp_path, check=True,
                 timeout=60)
  got = photo.read(tmp_path / 'colored.png').pixels
  assert got.shape == (90, 120, 3)
  assert got.dtype == np.uint16


def test_what_a_method_with_one_coloring_offers(run, tmp_path):
  del run
  one = composing.Method(tiny_method.build(num_components=1), {
      'params': {'chroma': np.float32(40)}, 'model_state': {}}, 16)
  one.num_colorings = 1
  subject = composing.Subject(
      inference.as_photo(skimage.data.coffee()[::8, ::8]), longest=96,
      sizes=[16])
  from colorjax.choices import Choices
  from colorjax.studio import work
  found = work.colorings_of(subject, one, Choices(), None, None)
  assert [x['coloring']['strength'] for x in found] == [1, 0.6, 1.4, 1.8]
  assert {x['probability'] for x in found} == {None}
