"""Which pretrained network takes its weights from which file."""

import pathlib
import types

import pytest

from colorjax.colorizer import Pretrained
from colorjax.errors import UserError
from colorjax.runs import pretrained

BOTH = ['xception', 'vgg16']


@pytest.mark.parametrize(('text', 'names', 'expected'), [
    (None, BOTH, {}), ('random', BOTH, {}), ('x.h5', [], {}),
    ('x.h5', ['vgg16'], {'vgg16': 'x.h5'}),
    ('a,b=c/x.h5', ['vgg16'], {'vgg16': 'a,b=c/x.h5'}),
    ('vgg16=x.h5', ['vgg16'], {'vgg16': 'x.h5'}),
    ('vgg16=x.h5', BOTH, {'vgg16': 'x.h5'}),
    ('vgg16=x.h5,xception=a=b.h5', BOTH,
     {'vgg16': 'x.h5', 'xception': 'a=b.h5'})])
def test_files_by_network(text, names, expected):
  found = pretrained.parse(text, names)
  assert found == {k: pathlib.Path(v) for k, v in expected.items()}


@pytest.mark.parametrize(('text', 'names', 'message'), [
    ('x.h5', BOTH, 'networks are xception, vgg16: give NAME=FILE'),
    ('vgg=x.h5', ['vgg16'], 'networks are vgg16: give NAME=FILE'),
    ('vgg16=x.h5,y.h5', BOTH, "'y.h5' is not NAME=FILE; NAME is one of"),
    ('vgg16=x.h5,vgg16=y.h5', BOTH, "'vgg16=y.h5' is not NAME=FILE"),
    ('vgg16=', BOTH, "'vgg16=' is not NAME=FILE")])
def test_wrong_names_and_files(text, names, message):
  with pytest.raises(UserError, match=message):
    pretrained.parse(text, names)


def _colorizer(downloads):
  def network(name):
    def download():
      downloads.append(name)
      return pathlib.Path(f'{name}.h5')

    return Pretrained(lambda v, path: {**v, name: path.name}, download)

  return types.SimpleNamespace(backbones={n: network(n) for n in BOTH})


def test_networks_without_a_file_are_downloaded(tmp_path):
  downloads = []
  colorizer = _colorizer(downloads)
  file = tmp_path / 'mine.h5'
  file.touch()
  files = pretrained.find(colorizer, f'vgg16={file}')
  assert downloads == ['xception']
  variables = pretrained.load(colorizer, {'params': 1}, files)
  assert variables == {
      'params': 1, 'xception': 'xception.h5', 'vgg16': 'mine.h5'}
  assert pretrained.find(colorizer, 'random') == {}
  assert downloads == ['xception']
  with pytest.raises(UserError, match=r'no\.h5: no such file for vgg16'):
    pretrained.find(colorizer, 'vgg16=no.h5')
