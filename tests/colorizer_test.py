"""The record beside a checkpoint: built again, or refused in one line."""

import pytest

from colorjax.colorizer import Spec
from colorjax.errors import UserError


def test_spec_round_trip_builds_the_same_method(tmp_path):
  spec = Spec('colorjax.methods.mbm',
              {'num_components': 3, 'filters': [16, 32]}, 32)
  spec.save(tmp_path / 'colorizer.json')
  loaded = Spec.load(tmp_path / 'colorizer.json')
  assert loaded == spec
  assert loaded.build().event_shape((32, 32)) == (16, 16)


def test_damaged_record_names_the_file(tmp_path):
  path = tmp_path / 'colorizer.json'
  for text in ('{', '[]', '{"method": "x"}'):
    path.write_text(text)
    with pytest.raises(UserError, match=r'colorizer\.json is no colorizer'):
      Spec.load(path)


def test_unknown_method_names_the_module():
  with pytest.raises(UserError, match=r'colorjax\.methods\.nothing'):
    Spec('colorjax.methods.nothing', {}, 32).build()
