"""Comparisons of results whose differences are known."""

import dataclasses

import numpy as np
import pytest
from example_results import (
  NUM_PHOTOS,
  ab_distances,
  make_result,
  make_row,
  three_rows,
)

from colorjax.errors import UserError
from colorjax.evaluation import comparison, comparison_table, protocol
from colorjax.metrics import bootstrap


@pytest.fixture(scope='module')
def distance():
  return ab_distances()


@pytest.fixture(scope='module')
def rows():
  return three_rows()


@pytest.fixture(scope='module')
def table(rows):
  return comparison.compare(rows, against='grey')


@pytest.mark.parametrize(('changes', 'said'), [
    ({'protocol': protocol.folder(16, 'squash')},
     'protocol fit crop and squash'),
    ({'protocol': dataclasses.replace(protocol.folder(16, 'crop'), version=2)},
     'protocol version 1 and 2'),
    ({'pixels': 'ff'}, 'other pixels'),
    ({'photographs': ('a',)}, '60 and 1 photographs'),
    ({'num_draws': 9, 'num_proposals': 2},
     'num_proposals 8 and 2; num_draws 19 and 9')])
def test_rows_that_are_not_comparable(distance, changes, said):
  number = len(changes.get('photographs', distance))
  base, same = (make_row(name, {'ab_distance': distance})
                for name in ('base', 'ours'))
  other = make_row('theirs', {'ab_distance': distance[:number]}, **changes)
  with pytest.raises(UserError) as error:
    comparison.check([base, same, other], mixed=False)
  assert str(error.value) == (
      f'base and theirs are not comparable: {said}; evaluate both '
      'in the same way, or set mixed_protocols=True')


def test_seeds_that_are_not_comparable(distance):
  statistics = {'ab_distance': distance}
  row = comparison.ComparedMethod(name='ours', results=[
      make_result(statistics), make_result(statistics, pixels='ff'),
      make_result(statistics)])
  with pytest.raises(UserError, match=r'^the seeds of ours are not '
                     'comparable: other pixels'):
    comparison.check([row], mixed=False)


def test_rows_that_are_not_comparable_get_a_note_with_mixed(distance):
  worse = {'ab_distance': distance + 5}
  few = {'ab_distance': distance[:7]}
  rows = comparison.check([
      make_row('base', {'ab_distance': distance}),
      make_row('other', few, photographs=tuple('abcdefg')),
      make_row('same', worse),
      make_row('seeds', worse, worse, pixels='ff')], mixed=True)
  assert [row.note for row in rows] == [
      '', '60 and 7 photographs', '', 'other pixels']
  for against, compared in (('base', ['same']), ('other', [])):
    table = comparison.compare(rows, against=against)
    cells = {name: cells['ab_distance'] for name, cells in table.items()}
    assert [name for name, cell in cells.items() if cell.p] == compared
    assert [name for name, cell in cells.items() if cell.difference
            ] == compared
    assert cells['other'].interval.n == 7
    np.testing.assert_allclose(
        cells['other'].interval.mean, distance[:7].mean())
  text = comparison_table.markdown(table, rows, ['ab_distance'], against='base')
  assert '| other† | ' in text
  assert '| base | ' in text
  assert ('† other is not comparable with base: 60 and 7 photographs.\n'
          '† seeds is not comparable with base: other pixels.\n') in text


def test_two_rows_with_the_same_name(distance):
  row = make_row('ours', {'ab_distance': distance})
  with pytest.raises(UserError, match='two rows have the name ours'):
    comparison.check([row, row], mixed=True)


def test_an_unknown_row_for_differences(rows):
  with pytest.raises(UserError, match=r'^against=gray: there is no such row; '
                     r'choose one of truth, grey, my_mbm$'):
    comparison.compare(rows, against='gray')


def test_metrics_by_hand(table, distance):
  assert list(table) == ['truth', 'grey', 'my_mbm']
  assert set(table['truth']) == {'psnr', 'ab_distance'}
  grey, ours = table['grey']['ab_distance'], table['my_mbm']['ab_distance']
  assert grey.interval == bootstrap.mean_interval(distance)
  assert (grey.seed_std, grey.difference, grey.p) == (None, None, None)
  np.testing.assert_allclose(ours.interval.mean, distance.mean() - 3)
  assert ours.interval.n == NUM_PHOTOS
  np.testing.assert_allclose(ours.seed_std, np.std([2.0, 4.0], ddof=1))
  np.testing.assert_allclose(ours.difference.mean, -3)
  # Photographs are paired, so only the drawn seeds vary.
  np.testing.assert_allclose(
      [ours.difference.low, ours.difference.high], [-4, -2])
  assert ours.interval.high - ours.interval.low > 2.5
  np.testing.assert_allclose(ours.p, 2 / 1001)
  assert ours.is_significant


def test_the_same_statistics_do_not_differ(table):
  cell = table['my_mbm']['auc_rebalanced']
  assert cell.p == 1
  assert not cell.is_significant
  np.testing.assert_allclose(
      [cell.difference.mean, cell.difference.low, cell.difference.high], 0,
      atol=1e-12)


def test_a_small_difference_is_found_by_pairing(distance):
  rng = np.random.default_rng(2)
  rows = [make_row('grey', {'ab_distance': distance}),
          make_row('better', {
              'ab_distance': distance - rng.normal(0.3, 0.5, NUM_PHOTOS)}),
          make_row('alike', {'ab_distance': distance + rng.permutation(
              np.repeat([-0.5, 0.5], NUM_PHOTOS // 2))})]
  table = comparison.compare(rows, against='grey')
  base, better, alike = (table[row.name]['ab_distance'] for row in rows)
  assert base.interval.low < better.interval.mean < base.interval.high
  assert better.is_significant
  assert better.difference.high < 0
  assert not alike.is_significant
  assert alike.difference.low < 0 < alike.difference.high


def test_metrics_of_sets_are_reduced(distance):
  rng = np.random.default_rng(3)
  truth = rng.uniform(20, 40, NUM_PHOTOS)
  pairs = np.stack([truth + rng.choice([-9.0, 9.0], NUM_PHOTOS) + 1, truth], -1)
  statistics = {'delta_colorfulness_of_means': pairs,
                'auc_rebalanced': np.zeros((NUM_PHOTOS, 2, 313))}
  # One bin has a small area and many pixels, the other the opposite.
  statistics['auc_rebalanced'][:, 1, 5], statistics['auc_rebalanced'][
      :, 0, 5] = 99, 99 * 30
  statistics['auc_rebalanced'][:, 1, 7], statistics['auc_rebalanced'][
      :, 0, 7] = 1, 120
  cells = comparison.compare(
      [make_row('ours', statistics)], against='ours')['ours']
  np.testing.assert_allclose(
      cells['delta_colorfulness_of_means'].interval.mean,
      abs((pairs[:, 0] - pairs[:, 1]).mean()))
  np.testing.assert_allclose(
      cells['delta_colorfulness_mean'].interval.mean,
      abs(pairs[:, 0] - pairs[:, 1]).mean())
  np.testing.assert_allclose(
      cells['auc_rebalanced'].interval.mean, 100 * (30 + 120) / 2 / 150)


def test_differences_of_fid_are_recentered():
  """The FID of a resample is biased, unless it is 0."""
  rng = np.random.default_rng(4)
  truth = rng.normal(size=(NUM_PHOTOS, 20))
  answer = rng.normal(0.5, 1, (NUM_PHOTOS, 20))
  name = 'fid_pytorch_fid'
  rows = [make_row('truth', {name: np.stack([truth, truth], 1)}),
          make_row('ours', {name: np.stack([answer, truth], 1)})]
  cell = comparison.compare(rows, against='truth')['ours'][name]
  np.testing.assert_allclose(cell.difference.mean, cell.interval.mean)
  for one in (cell.interval, cell.difference):
    assert one.low < one.mean < one.high
  assert cell.is_significant


@pytest.mark.parametrize(('densities', 'compared'), [
    (('4 x 4, exact', '4 x 4, exact'), True),
    (('4 x 4, exact', '8 x 8, exact'), False),
    (('4 x 4, exact', '4 x 4, lower bound'), False)])
def test_bits_are_comparable_for_the_same_field(densities, compared):
  statistics = {'bits_per_dim': np.linspace(4, 6, NUM_PHOTOS),
                'ab_distance': np.linspace(4, 6, NUM_PHOTOS)}
  rows = comparison.check([
      make_row(name, statistics, density=density)
      for name, density in zip('ab', densities, strict=True)], mixed=False)
  cells = comparison.compare(rows, against='a')['b']
  assert (cells['bits_per_dim'].difference is not None) == compared
  assert cells['ab_distance'].difference is not None


def test_infinite_values(table, rows):
  cell = table['truth']['psnr']
  assert np.isposinf(cell.interval.mean)
  assert cell.difference is None, 'of infinity'
  assert not cell.is_significant
  other = comparison.compare(rows, against='truth')['grey']['psnr']
  assert other.difference is None, 'from infinity'
  np.testing.assert_allclose(other.interval.mean, 20)
  below = comparison.compare(
      [make_row('a', {'bits_per_dim': np.full(NUM_PHOTOS, -np.inf)})],
      against='a')
  _, lines = comparison_table.texts(
      below, [make_row('a', {})], ['bits_per_dim'])
  assert lines == [['a', '-∞', '']]


def test_differences_are_over_photographs_that_both_rows_include():
  """An exactly reproduced photograph is left out of both rows."""
  base = np.linspace(20, 30, NUM_PHOTOS)
  base[0] = 60  # nearly right
  ours = base + 1
  ours[:2] = np.inf
  rows = comparison.check([make_row('base', {'psnr': base}),
                           make_row('ours', {'psnr': ours})], mixed=False)
  cell = comparison.compare(rows, against='base')['ours']['psnr']
  assert cell.interval.n == NUM_PHOTOS - 2
  np.testing.assert_allclose(cell.interval.mean, ours[2:].mean())
  np.testing.assert_allclose(
      [cell.difference.mean, cell.difference.low, cell.difference.high], 1)
  assert cell.is_significant
  text = '\n'.join(comparison_table.notes(rows, ['psnr'], against='base'))
  assert ('psnr leaves out pictures equal to the photograph: 2 for ours; '
          in text)
