"""The studio's page in a real browser.

One server and one browser serve all tests of this file. Pictures of the page
are written to the folder COLORJAX_STUDIO_PICTURES, if that is set.
"""

import os
import pathlib
import shutil
import time

import numpy as np
import PIL.Image
import pytest
import serving
import skimage.data
import tiny_method

from colorjax.runs import colorize
from colorjax.studio import models, sessions

BROWSER = shutil.which('chromium') or shutil.which('chromium-browser')
if BROWSER is None:
  if os.environ.get('COLORJAX_REQUIRE_BROWSER'):
    raise RuntimeError('COLORJAX_REQUIRE_BROWSER is set, but there is no '
                       'chromium')
  pytest.skip('there is no chromium', allow_module_level=True)
sync_api = pytest.importorskip('playwright.sync_api')

pytestmark = pytest.mark.usefixtures('compiles_quickly')

LIMITS = sessions.Limits(file_bytes=2_000_000, pixels=1_000_000, preview=256)
SHOTS = os.environ.get('COLORJAX_STUDIO_PICTURES')
SECONDS = 60  # the machine may be busy


@pytest.fixture(scope='module')
def place(tmp_path_factory):
  """A folder with photographs and a run of eight colorings."""
  folder = tmp_path_factory.mktemp('place')
  tiny_method.write_run(folder / 'run', image_size=16, num_components=8)
  exif = PIL.Image.Exif()
  exif[0x010F] = 'Camera'
  for name, pixels in (('cup', skimage.data.coffee()),
                       ('cat', skimage.data.chelsea())):
    PIL.Image.fromarray(pixels).convert('L').resize((300, 200)).save(
        folder / f'{name}.jpg', exif=exif, quality=90)
  (folder / 'broken.jpg').write_bytes((folder / 'cup.jpg').read_bytes()[:3000])
  (folder / 'text.png').write_bytes(b'This is not a picture.')
  (folder / 'heavy.jpg').write_bytes(bytes(2_000_001))
  PIL.Image.new('L', (1001, 1000)).save(folder / 'huge.png')
  return folder


@pytest.fixture(scope='module')
def loaded(place, compiles_quickly):
  del compiles_quickly
  return models.Models({'tiny': place / 'run'})


class Holder:
  """The server, which a test may stop and start again at the same port."""

  def __init__(self, loaded, place):
    self._arguments = loaded, place
    self.count = 0
    self.start(0)

  def start(self, port):
    loaded, place = self._arguments
    self.count += 1
    self.running = serving.Running(
        loaded, place / f'files{self.count}', port=port, limits=LIMITS)
    self.port, self.address = self.running.port, self.running.address

  def stop(self):
    self.running.stop()


@pytest.fixture(scope='module')
def server(loaded, place):
  holder = Holder(loaded, place)
  yield holder
  holder.stop()


@pytest.fixture(scope='module')
def browser():
  with sync_api.sync_playwright() as playwright:
    chromium = playwright.chromium.launch(
        executable_path=BROWSER, args=['--no-sandbox'])
    yield chromium
    chromium.close()


class Page:
  """A page of the studio, and what it asked for and complained about."""

  def __init__(self, browser, server, **options):
    self.server = server
    self.context = browser.new_context(**{
        'viewport': {'width': 1280, 'height': 800}, 'accept_downloads': True
    } | options)
    self.page = self.context.new_page()
    self.page.set_default_timeout(1000 * SECONDS)
    self.foreign, self.errors = [], []
    self.page.on('request', lambda request: self.foreign.append(request.url)
                 if not request.url.startswith(
                     (server.address, 'blob:' + server.address)) else None)
    self.page.on('pageerror', lambda error: self.errors.append(str(error)))
    self.page.goto(server.address)
    self.page.wait_for_selector('body[data-ready=true]')

  def __getattr__(self, name):
    return getattr(self.page, name)

  def wait(self, condition):
    """Waits until JavaScript is true; the page's policy forbids `eval`."""
    end = time.monotonic() + SECONDS
    while not self.page.evaluate(condition):
      assert time.monotonic() < end, condition
      self.page.wait_for_timeout(30)

  def shows(self):
    """The choices whose picture is on the screen."""
    return self.page.evaluate(
        "JSON.parse(document.getElementById('picture').dataset.shown || '{}')")

  def settle(self, **entries):
    """Waits until the screen shows these choices."""
    end = time.monotonic() + SECONDS
    while True:
      shown = self.shows()
      if shown and all(shown[name] == x for name, x in entries.items()):
        return shown
      assert time.monotonic() < end, (entries, shown)
      self.page.wait_for_timeout(30)

  def open(self, *paths):
    count = self.page.evaluate("document.querySelectorAll('.tab').length")
    self.page.set_input_files('#file', [str(path) for path in paths])
    self.wait("document.querySelectorAll('.tab').length == "
              f'{count + len(paths)}')
    self.settle()

  def thumbs(self):
    self.wait(
        "(() => { const all = [...document.querySelectorAll('.coloring img')];"
        ' return all.length == 8 && all.every(x => x.naturalWidth > 0); })()')

  def pixels(self):
    """What the image of the photograph shows, [H, W, 3]."""
    data = self.page.evaluate('''async () => {
      const image = document.getElementById('picture');
      await image.decode();
      const canvas = new OffscreenCanvas(
        image.naturalWidth, image.naturalHeight);
      const pen = canvas.getContext('2d');
      pen.drawImage(image, 0, 0);
      const {data} = pen.getImageData(0, 0, canvas.width, canvas.height);
      return [canvas.height, canvas.width, [...data]];
    }''')
    return np.array(data[2]).reshape(data[0], data[1], 4)[..., :3]

  def click_at(self, x, y):
    box = self.page.locator('#overlay').bounding_box()
    self.page.mouse.click(
        box['x'] + x * box['width'], box['y'] + y * box['height'])

  def banner(self):
    return self.page.locator('#banner').inner_text()

  def download(self):
    self.page.click('#download')
    with self.page.expect_download() as download:
      self.page.click('#download-now')
    return download.value.suggested_filename, pathlib.Path(
        download.value.path()).read_bytes()

  def shot(self, name):
    if SHOTS:
      pathlib.Path(SHOTS).mkdir(exist_ok=True)
      self.page.screenshot(path=f'{SHOTS}/{name}.png')


@pytest.fixture
def studio(browser, server):
  page = Page(browser, server)
  yield page
  page.context.close()
  assert page.foreign == []
  assert page.errors == []


def test_drop_choose_merge_hint_undo_redo_download(studio, place, tmp_path):
  studio.shot('01_empty')
  # A file that is dropped on the page, as a browser does it.
  data = (place / 'cup.jpg').read_bytes()
  transfer = studio.page.evaluate_handle(
      '''bytes => { const transfer = new DataTransfer();
      transfer.items.add(new File([new Uint8Array(bytes)], 'cup.jpg'));
      return transfer; }''', list(data))
  studio.page.dispatch_event('body', 'dragenter', {'dataTransfer': transfer})
  assert studio.is_visible('#drop')
  studio.page.dispatch_event('body', 'drop', {'dataTransfer': transfer})
  assert not studio.is_visible('#drop')
  studio.settle()
  studio.thumbs()
  studio.shot('02_photo')
  labels = studio.page.evaluate(
      "[...document.querySelectorAll('.coloring')].map("
      "x => x.getAttribute('aria-label'))")
  assert labels[0] == 'Coloring 1, probability 50 %'
  assert labels[7] == 'Coloring 8, probability < 1 %'
  first = studio.pixels()
  assert np.ptp(first, axis=-1).mean() > 10

  studio.click('.coloring >> nth=2')
  studio.settle(coloring={'index': 2, 'seed': None, 'strength': 1})
  second = studio.pixels()
  studio.click('[data-tool=region]')
  studio.click('.coloring >> nth=0')
  studio.click('[data-shape=brush]')
  studio.shot('03_regions')
  studio.click_at(0.5, 0.5)
  studio.wait("JSON.parse(document.getElementById('picture').dataset.shown)"
              '.regions.length == 1')
  merged = studio.pixels()
  middle = tuple(side // 2 for side in merged.shape[:2])
  np.testing.assert_allclose(merged[middle], first[middle], atol=6)
  np.testing.assert_allclose(merged[4, 4], second[4, 4], atol=6)
  studio.shot('04_merged')

  studio.click('[data-tool=hint]')
  studio.click_at(0.2, 0.2)
  studio.wait("document.querySelectorAll('.swatch').length > 3")
  studio.shot('05_swatches')
  studio.click('.swatch >> nth=3')
  studio.wait("JSON.parse(document.getElementById('picture').dataset.shown)"
              '.hints.length == 1')
  hinted = studio.pixels()
  assert np.abs(hinted - merged).max() > 10
  studio.shot('06_hint')

  studio.click('#undo')
  studio.settle(hints=[])
  np.testing.assert_array_equal(studio.pixels(), merged)
  studio.page.keyboard.press('Control+z')
  studio.settle(regions=[])
  np.testing.assert_array_equal(studio.pixels(), second)
  studio.page.keyboard.press('Control+Shift+z')
  studio.click('#redo')
  studio.wait("JSON.parse(document.getElementById('picture').dataset.shown)"
              '.hints.length == 1')
  np.testing.assert_array_equal(studio.pixels(), hinted)

  studio.click('#undo')
  studio.click('#undo')
  studio.settle(regions=[], hints=[])
  name, got = studio.download()
  studio.shot('07_after_download')
  assert name == 'cup.colored.jpg'
  colorize.colorize_all(place / 'run', place / 'cup.jpg', tmp_path / 'out',
                        num_proposals=8, file_format='same')
  assert got == (tmp_path / 'out' / 'cup.2.jpg').read_bytes()


def test_files_that_are_refused(studio, place):
  for name, words in (('broken.jpg', 'damaged'), ('text.png', 'not a photo'),
                      ('heavy.jpg', 'at most 2 MB'),
                      ('huge.png', 'too large: 1001x1000')):
    studio.page.set_input_files('#file', str(place / name))
    studio.wait("document.getElementById('banner').textContent"
                f".includes('{name}')")
    assert words in studio.banner()
  studio.shot('08_refused')
  studio.open(place / 'cat.jpg')
  assert studio.is_hidden('#banner')


def test_two_people_at_once(studio, browser, server, place):
  studio.open(place / 'cup.jpg')
  other = Page(browser, server)
  assert other.locator('.tab').count() == 0
  assert other.is_visible('#choose')
  other.open(place / 'cat.jpg')
  other.click('.coloring >> nth=5')
  other.settle(coloring={'index': 5, 'seed': None, 'strength': 1})
  assert studio.shows()['coloring']['index'] == 0
  # Each has its own name, which the other's photograph does not answer to.
  status = studio.page.evaluate('''async (other) => {
    const {photos: [{id}]} = JSON.parse(other);
    const own = JSON.parse(sessionStorage.getItem('colorjax-studio')).session;
    return (await fetch(`api/photos/${id}/original`,
      {headers: {'X-Session': own}})).status;
  }''', other.page.evaluate("sessionStorage.getItem('colorjax-studio')"))
  assert status == 404
  other.context.close()


def test_thirty_changes_in_a_row(studio, place):
  studio.open(place / 'cup.jpg')
  studio.thumbs()
  for i in range(30):
    studio.page.evaluate(
        f"document.querySelectorAll('.coloring')[{(3 * i + 1) % 8}].click()")
  last = (3 * 29 + 1) % 8
  studio.settle(coloring={'index': last, 'seed': None, 'strength': 1})
  end = studio.pixels()
  studio.page.wait_for_timeout(300)  # no late answer replaces it
  assert studio.shows()['coloring']['index'] == last
  for _ in range(30):
    studio.page.keyboard.press('Control+z')
  assert studio.is_disabled('#undo')
  studio.settle(coloring={'index': 0, 'seed': None, 'strength': 1})
  for _ in range(30):
    studio.page.keyboard.press('Control+y')
  assert studio.is_disabled('#redo')
  studio.settle(coloring={'index': last, 'seed': None, 'strength': 1})
  np.testing.assert_array_equal(studio.pixels(), end)


def test_the_server_is_killed_and_started_again(studio, server, place):
  studio.open(place / 'cat.jpg')
  studio.thumbs()
  studio.click('.coloring >> nth=4')
  studio.settle(coloring={'index': 4, 'seed': None, 'strength': 1})
  before = studio.pixels()
  server.stop()
  studio.click('.coloring >> nth=6')
  studio.wait("document.getElementById('banner').textContent"
              ".includes('stopped answering')")
  studio.shot('09_away')
  server.start(server.port)
  studio.settle(coloring={'index': 6, 'seed': None, 'strength': 1})
  assert studio.is_hidden('#banner')
  studio.page.keyboard.press('Control+z')
  studio.settle(coloring={'index': 4, 'seed': None, 'strength': 1})
  np.testing.assert_array_equal(studio.pixels(), before)


def test_the_page_is_loaded_again(studio, place):
  studio.open(place / 'cat.jpg', place / 'cup.jpg')
  studio.thumbs()
  studio.click('.coloring >> nth=1')
  studio.settle(coloring={'index': 1, 'seed': None, 'strength': 1})
  studio.page.reload()
  studio.page.wait_for_selector('body[data-ready=true]')
  assert studio.locator('.tab').count() == 2
  studio.click('.tab >> nth=1 >> button >> nth=0')
  studio.settle(coloring={'index': 1, 'seed': None, 'strength': 1})
  studio.page.keyboard.press('Control+z')
  studio.settle(coloring={'index': 0, 'seed': None, 'strength': 1})


def test_save_and_open(studio, browser, server, place):
  studio.open(place / 'cup.jpg')
  studio.page.set_input_files('#reference-file', str(place / 'cat.jpg'))
  studio.wait("!document.getElementById('no-reference').hidden")
  studio.thumbs()
  studio.click('.coloring >> nth=3')
  shown = studio.settle(coloring={'index': 3, 'seed': None, 'strength': 1})
  assert shown['reference']
  expected = studio.pixels()
  with studio.page.expect_download() as download:
    studio.click('#save')
  assert download.value.suggested_filename == 'cup.studio.json'
  saved = pathlib.Path(download.value.path()).read_bytes()
  other = Page(browser, server)
  other.page.set_input_files('#choices-file', files=[
      {'name': 'a.json', 'mimeType': 'application/json', 'buffer': saved}])
  other.wait("document.getElementById('banner').textContent"
             ".includes('Open that photograph')")
  other.open(place / 'cup.jpg')
  assert other.settle(coloring=shown['coloring']) == shown
  np.testing.assert_array_equal(other.pixels(), expected)
  other.page.set_input_files('#choices-file', files=[
      {'name': 'b.json', 'mimeType': 'application/json', 'buffer': b'{'}])
  other.wait("document.getElementById('banner').textContent"
             ".includes('b.json was not opened')")
  other.context.close()


def test_keyboard_alone(studio, place):
  """From the first button to a hint and a grey part, without a pointer."""
  press = studio.page.keyboard.press
  focus = "document.activeElement.id || document.activeElement.className"

  def tab_to(name):
    for _ in range(40):
      if studio.page.evaluate(focus) == name:
        return
      press('Tab')
    raise AssertionError(f'{name} is not reached by Tab')

  choosers = []
  studio.page.on('filechooser', lambda chooser: choosers.append(chooser))
  studio.page.wait_for_timeout(200)  # until the browser knows of the listener
  tab_to('choose')
  press('Enter')
  studio.page.wait_for_timeout(200)
  choosers[0].set_files(str(place / 'cup.jpg'))
  studio.settle()
  studio.thumbs()
  tab_to('coloring')
  press('ArrowRight')
  studio.settle(coloring={'index': 1, 'seed': None, 'strength': 1})
  studio.page.keyboard.press('Shift+Tab')
  tab_to('overlay')
  press('ArrowRight')
  assert studio.page.evaluate("document.getElementById('compare').value") == '2'
  press('r')  # regions
  press('3')
  for _ in range(4):
    press('ArrowLeft')
  press('Enter')
  studio.wait("JSON.parse(document.getElementById('picture').dataset.shown)"
              '.regions.length == 1')
  region = studio.shows()['regions'][0]
  assert region['coloring']['index'] == 2
  assert region['at'] == [130, 100]
  press('c')  # colors
  press('Shift+ArrowUp')
  press('Enter')
  studio.wait("document.querySelectorAll('.swatch').length > 3")
  studio.shot('10_keyboard')
  tab_to('swatch')
  press('Enter')
  studio.wait("JSON.parse(document.getElementById('picture').dataset.shown)"
              '.hints.length == 1')
  assert studio.page.evaluate(
      "document.getElementById('status').textContent") == 'The color is there.'
  studio.page.focus('#overlay')
  press('g')
  press('Enter')
  studio.wait("JSON.parse(document.getElementById('picture').dataset.shown)"
              '.mask.edits.length == 1')
  assert (np.ptp(studio.pixels(), axis=-1) < 3).mean() > 0.005


def test_everything_has_a_name(studio, place):
  studio.open(place / 'cup.jpg')
  studio.thumbs()
  for tool in ('whole', 'region', 'hint', 'grey'):
    studio.click(f'[data-tool={tool}]')
    nameless = studio.page.evaluate('''
      [...document.querySelectorAll('button, input, select, canvas')].filter(
        (x) => x.checkVisibility() && !x.ariaHidden).filter(
        (x) => !(x.ariaLabel || x.textContent.trim() || x.labels?.length))
      .map((x) => x.outerHTML)''')
    assert nameless == []


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_phones(browser, server, place, scheme):
  page = Page(browser, server, viewport={'width': 360, 'height': 740},
              color_scheme=scheme, has_touch=True)
  page.shot(f'11_phone_{scheme}_empty')
  page.open(place / 'cup.jpg')
  page.thumbs()
  for tool in ('whole', 'region', 'hint', 'grey'):
    page.click(f'[data-tool={tool}]')
    assert page.page.evaluate('document.documentElement.scrollWidth') == 360
    if SHOTS:
      page.page.evaluate('window.scrollTo(0, 0)')
      page.shot(f'12_phone_{scheme}_{tool}')
  background = page.page.evaluate(
      'getComputedStyle(document.body).backgroundColor')
  levels = [int(x) for x in background.strip('rgb()').split(',')]
  assert (max(levels) < 60) == (scheme == 'dark')
  assert page.errors == []
  page.context.close()


def test_views(studio, place):
  """Before and after, uncertainty, other proposals, saturation, zoom."""
  studio.open(place / 'cat.jpg')
  studio.thumbs()
  box = studio.page.locator('#overlay').bounding_box()
  studio.page.mouse.move(box['x'] + box['width'] / 4, box['y'] + 20)
  studio.page.mouse.down()
  studio.page.mouse.move(box['x'] + box['width'] / 2, box['y'] + 20)
  studio.page.mouse.up()
  assert studio.page.evaluate(
      "Math.abs(document.getElementById('compare').value - 50)") <= 1
  studio.shot('13_before_after')
  studio.click('#uncertain')
  studio.wait("document.getElementById('map').dataset.key !== undefined")
  studio.shot('14_uncertainty')
  studio.click('#uncertain')
  assert studio.is_hidden('#map')
  studio.click('#more')
  studio.wait("document.querySelector('.coloring').getAttribute('aria-label')"
              " === 'Coloring 1'")
  studio.click('.coloring >> nth=1')
  studio.settle(coloring={'index': 1, 'seed': 0, 'strength': 1})
  studio.page.evaluate('''() => { const x = document.getElementById(
    'saturation'); x.value = 0; x.dispatchEvent(new Event('change')); }''')
  studio.settle(saturation=0)
  assert np.ptp(studio.pixels(), axis=-1).max() <= 3
  width = studio.page.locator('#sheet').bounding_box()['width']
  studio.click('#zoom-in')
  zoomed = studio.page.locator('#sheet').bounding_box()['width']
  assert zoomed == pytest.approx(1.5 * width, abs=2)


def test_nothing_runs_that_is_not_a_file_of_the_page(studio):
  """The policy of the page holds in the browser, too."""
  blocked = studio.page.evaluate('''() => new Promise((done) => {
    addEventListener('securitypolicyviolation',
      (event) => done(event.effectiveDirective));
    const script = document.createElement('script');
    script.textContent = 'window.isRun = true';
    document.body.append(script);
  })''')
  assert blocked.startswith('script-src')
  assert studio.page.evaluate('window.isRun') is None
  names = studio.page.evaluate(
      "performance.getEntriesByType('resource').map((x) => x.name)")
  assert len(names) > 10
