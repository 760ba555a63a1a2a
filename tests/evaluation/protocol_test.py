"""Differences that make results not comparable."""

import pytest
from example_results import make_record

from colorjax.evaluation import protocol


@pytest.mark.parametrize(('changes', 'said'), [
    ({}, []), ({'data': 'folder:y', 'judged': 'z', 'seed': 1}, []),
    ({'protocol': protocol.folder(32, 'crop')},
     ['protocol image_size 16 and 32']),
    ({'protocol': protocol.PROTOCOLS['imagenet_val5k']},
     ['protocol name folder and imagenet_val5k',
      'protocol image_size 16 and 256']),
    ({'pixels': '01'}, ['other pixels']),
    ({'photographs': ('a',), 'pixels': '01'}, ['60 and 1 photographs']),
    ({'num_samples': 2}, ['num_samples 4 and 2']),
    ({'weights': '12', 'networks': {'lpips_vgg': '2'}}, []),
    ({'film': 'plate, version 1'}, ['film none and plate, version 1']),
    ({'networks': {'lpips_alex': '2'}}, ['other weights of lpips_alex'])])
def test_differences(changes, said):
  record = make_record(networks={'lpips_alex': '1'})
  assert protocol.differences(record, make_record(**changes)) == said


def test_scans_of_another_seed_are_others():
  one, two = (make_record(film='plate, version 1', seed=seed)
              for seed in (1, 2))
  assert protocol.differences(one, two) == ['film with seed 1 and 2']
  assert not protocol.differences(one, one)


def test_records_of_earlier_versions_have_no_scans():
  record = make_record(film='plate, version 1')
  values = record.as_json()
  assert protocol.Record.from_json(values, 'x') == record
  del values['film']
  assert protocol.Record.from_json(values, 'x').film == ''
