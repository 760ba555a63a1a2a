"""Records of methods: saved, loaded and converted, or refused in one line."""

import json

import jax.numpy as jnp
import pytest

import colorjax
from colorjax import records
from colorjax.errors import UserError

OLD = {'method': 'tiny_method', 'settings': {}, 'image_size': 32}


def _write(path, **fields):
  path.write_text(json.dumps(fields))
  return path


@pytest.fixture
def path(tmp_path):
  return tmp_path / records.FILE


def test_a_loaded_record_builds_the_same_method(path):
  record = records.Record(
      method='colorjax.methods.mbm', image_size=32,
      settings={'num_components': 3, 'filters': [16, 32]})
  record.save(path)
  loaded = records.Record.load(path)
  assert loaded == record
  assert loaded.build().event_shape((32, 32)) == (16, 16)
  fields = json.loads(path.read_text())
  assert fields['schema'] == records.SCHEMA
  assert fields['colorjax_version'] == colorjax.__version__
  assert fields['commit'] is None or len(fields['commit']) == 40
  assert 'path' not in fields


def test_options_reach_the_method(path):
  records.Record(method='tiny_method', settings={}, image_size=32,
               asking={'num_components': 2}).save(path)
  assert records.Record.load(path).asking == {'num_components': 2}
  with pytest.raises(UserError, match='method of 2'):
    records.Record.load(path).build().propose(
        {'params': {'chroma': 1.0}}, {'lightness': jnp.zeros((1, 8, 8, 1))}, 3)


def test_a_record_without_a_version_is_converted(path):
  loaded = records.Record.load(_write(
      path, method='colorjax.methods.classification', image_size=64,
      settings={'filters': [16], 'axis_name': 'batch', 'temperature': 0.5}))
  assert loaded.settings == {'filters': [16]}
  assert loaded.asking == {'temperature': 0.5}
  assert loaded.schema == records.SCHEMA
  loaded = records.Record.load(_write(
      path, method='colorjax.methods.mean_colour', settings={}, image_size=8))
  assert loaded.method == 'colorjax.methods.baselines.mean_color'


@pytest.mark.parametrize(('fields', 'message'), [
    (OLD | {'settings': {'components': 3}}, 'does not take the argument '
     'components .*written by colorjax 0.1 or earlier'),
    (OLD | {'method': 'colorjax.methods.nothing'},
     r"no method 'colorjax\.methods\.nothing'"),
    (OLD | {'schema': 99, 'colorjax_version': '9.1'},
     r'schema=99 is not known .* wrote the record \(9\.1\)'),
    ({'method': 'x', 'settings': {}}, 'lacks the field image_size'),
    (OLD | {'schema': 2, 'colorjax_version': '0.2'}, 'lacks the field .*0.2'),
    (OLD | {'temper': 3}, 'unknown field temper'),
    (OLD | {'schema': 2, 'asking': {'hue': 1}, 'checkpoint': 'latest',
            'colorjax_version': '0.2', 'jax_version': '0.10', 'commit': None},
     "no option 'hue'"),
    (OLD | {'image_size': '32'}, "image_size='32'"),
    ([], 'no JSON object'),
    ('{', 'not valid JSON')])
def test_invalid_records_are_one_line_errors_with_the_file(
    path, fields, message):
  path.write_text(fields if isinstance(fields, str) else json.dumps(fields))
  with pytest.raises(UserError, match=message) as error:
    records.Record.load(path).build()
  assert str(path) in str(error.value)
  assert '\n' not in str(error.value)


def test_a_full_disk_leaves_no_record(path, monkeypatch):
  def full(self, content):
    with self.open('wb') as file:
      file.write(content[:3])
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(type(path), 'write_bytes', full)
  with pytest.raises(UserError, match='No space left on device'):
    records.Record(method='m', settings={}, image_size=8).save(path)
  assert not list(path.parent.iterdir())
