"""Tables of results whose figures are known beforehand."""

import csv
import dataclasses
import io
import re

import numpy as np
import pytest

from colorjax.errors import UserError
from colorjax.evaluation import catalogue, comparison, protocol, result
from colorjax.metrics import bootstrap

N = 60
COLUMNS = ['psnr', 'ab_distance', 'auc_rebalanced', 'best_of_k',
           'bits_per_dim', 'lpips_vgg']


def _record(**changes):
  fields = {
      'protocol': protocol.folder(16, 'crop'), 'data': 'folder:x',
      'photographs': tuple(f'{i:02}.png' for i in range(N)),
      'pixels': '0123456789abcdef', 'num_proposals': 8, 'num_samples': 4,
      'num_draws': 19, 'seed': 0, 'density': '', 'left_out': ('bad.png: no',),
      'num_grey': 3, 'near_duplicates': None, 'drops_near_duplicates': False,
      'judged': 'x', 'weights': '', 'networks': {}}
  return protocol.Record(**(fields | changes))


def _result(statistics, **changes):
  return result.EvaluationResult(_record(**changes), statistics,
                       catalogue.summarize(statistics))


def _row(name, *statistics, seconds=None, **changes):
  return comparison.ComparedMethod(name=name, seconds=seconds, results=[
      _result(one, **changes) for one in statistics])


@pytest.fixture(scope='module')
def distance():
  return np.random.default_rng(0).gamma(4.0, 3.0, N)


@pytest.fixture(scope='module')
def rows(distance):
  """Two rows without training, and one of two seeds that is better."""
  area = np.random.default_rng(1).uniform(50, 150, (N, 313))
  count = np.ones((N, 313))
  truth = {'psnr': np.full(N, np.inf), 'ab_distance': np.zeros(N)}
  grey = {'psnr': np.linspace(18, 22, N), 'ab_distance': distance,
          'auc_rebalanced': np.stack([area, count], 1)}
  seeds = [{'psnr': grey['psnr'] + more, 'ab_distance': distance - 2 * more,
            'auc_rebalanced': np.stack([area, count], 1),
            'best_of_k': distance - 3,
            'bits_per_dim': np.full(N, 5.0)} for more in (1.0, 2.0)]
  return comparison.check([
      _row('truth', truth), _row('grey', grey),
      _row('my_mbm', *seeds, seconds=61.4, density='4 x 4, exact')],
      mixed=False)


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
def test_rows_that_do_not_compare(distance, changes, said):
  number = len(changes.get('photographs', distance))
  base, same = (_row(name, {'ab_distance': distance})
                for name in ('base', 'ours'))
  other = _row('theirs', {'ab_distance': distance[:number]}, **changes)
  with pytest.raises(UserError) as error:
    comparison.check([base, same, other], mixed=False)
  assert str(error.value) == (
      f'base and theirs do not stand in one table: {said}. Evaluate both '
      'alike, or ask for mixed_protocols=True')


def test_seeds_that_do_not_compare(distance):
  statistics = {'ab_distance': distance}
  row = comparison.ComparedMethod(name='ours', results=[
      _result(statistics), _result(statistics, pixels='ff'),
      _result(statistics)])
  with pytest.raises(UserError, match=r'^the seeds of ours do not stand in one '
                     'table: other pixels'):
    comparison.check([row], mixed=False)


def test_rows_that_do_not_compare_are_marked_if_wanted(distance):
  worse = {'ab_distance': distance + 5}
  few = {'ab_distance': distance[:7]}
  rows = comparison.check([
      _row('base', {'ab_distance': distance}),
      _row('other', few, photographs=tuple('abcdefg')), _row('same', worse),
      _row('seeds', worse, worse, pixels='ff')], mixed=True)
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
  text = comparison.markdown(table, rows, ['ab_distance'], against='base')
  assert '| other† | ' in text
  assert '| base | ' in text
  assert ('† other does not compare with base: 60 and 7 photographs.\n'
          '† seeds does not compare with base: other pixels.\n') in text


def test_two_rows_of_one_name(distance):
  row = _row('ours', {'ab_distance': distance})
  with pytest.raises(UserError, match='two rows are called ours'):
    comparison.check([row, row], mixed=True)


def test_an_unknown_row_to_be_against(rows):
  with pytest.raises(UserError, match=r'^against=gray: there are the rows '
                     'truth, grey, my_mbm$'):
    comparison.compare(rows, against='gray')


def test_figures_by_hand(table, distance):
  assert list(table) == ['truth', 'grey', 'my_mbm']
  assert set(table['truth']) == {'psnr', 'ab_distance'}
  grey, ours = table['grey']['ab_distance'], table['my_mbm']['ab_distance']
  assert grey.interval == bootstrap.mean_interval(distance)
  assert (grey.seed_std, grey.difference, grey.p) == (None, None, None)
  np.testing.assert_allclose(ours.interval.mean, distance.mean() - 3)
  assert ours.interval.n == N
  np.testing.assert_allclose(ours.seed_std, np.std([2.0, 4.0], ddof=1))
  np.testing.assert_allclose(ours.difference.mean, -3)
  # Photographs are paired: what is left is which seeds are drawn.
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
  rows = [_row('grey', {'ab_distance': distance}),
          _row('better', {'ab_distance': distance - rng.normal(0.3, 0.5, N)}),
          _row('alike', {'ab_distance': distance + rng.permutation(
              np.repeat([-0.5, 0.5], N // 2))})]
  table = comparison.compare(rows, against='grey')
  base, better, alike = (table[row.name]['ab_distance'] for row in rows)
  assert base.interval.low < better.interval.mean < base.interval.high
  assert better.is_significant
  assert better.difference.high < 0
  assert not alike.is_significant
  assert alike.difference.low < 0 < alike.difference.high


def test_figures_of_sets_are_reduced(distance):
  rng = np.random.default_rng(3)
  truth = rng.uniform(20, 40, N)
  pairs = np.stack([truth + rng.choice([-9.0, 9.0], N) + 1, truth], -1)
  statistics = {'delta_colorfulness_of_means': pairs,
                'auc_rebalanced': np.zeros((N, 2, 313))}
  # One bin with little area on many pixels, one with much on few.
  statistics['auc_rebalanced'][:, 1, 5], statistics['auc_rebalanced'][
      :, 0, 5] = 99, 99 * 30
  statistics['auc_rebalanced'][:, 1, 7], statistics['auc_rebalanced'][
      :, 0, 7] = 1, 120
  cells = comparison.compare(
      [_row('ours', statistics)], against='ours')['ours']
  np.testing.assert_allclose(
      cells['delta_colorfulness_of_means'].interval.mean,
      abs((pairs[:, 0] - pairs[:, 1]).mean()))
  np.testing.assert_allclose(
      cells['delta_colorfulness_mean'].interval.mean,
      abs(pairs[:, 0] - pairs[:, 1]).mean())
  np.testing.assert_allclose(
      cells['auc_rebalanced'].interval.mean, 100 * (30 + 120) / 2 / 150)


def test_differences_of_fid_are_about_the_figure():
  """FID of a resample is too large, which the photographs' own 0 is not."""
  rng = np.random.default_rng(4)
  truth = rng.normal(size=(N, 20))
  answer = rng.normal(0.5, 1, (N, 20))
  name = 'fid_pytorch_fid'
  rows = [_row('truth', {name: np.stack([truth, truth], 1)}),
          _row('ours', {name: np.stack([answer, truth], 1)})]
  cell = comparison.compare(rows, against='truth')['ours'][name]
  np.testing.assert_allclose(cell.difference.mean, cell.interval.mean)
  for one in (cell.interval, cell.difference):
    assert one.low < one.mean < one.high
  assert cell.is_significant


@pytest.mark.parametrize(('densities', 'compared'), [
    (('4 x 4, exact', '4 x 4, exact'), True),
    (('4 x 4, exact', '8 x 8, exact'), False),
    (('4 x 4, exact', '4 x 4, lower bound'), False)])
def test_bits_compare_where_they_are_of_one_field(densities, compared):
  statistics = {'bits_per_dim': np.linspace(4, 6, N),
                'ab_distance': np.linspace(4, 6, N)}
  rows = comparison.check([
      _row(name, statistics, density=density)
      for name, density in zip('ab', densities, strict=True)], mixed=False)
  cells = comparison.compare(rows, against='a')['b']
  assert (cells['bits_per_dim'].difference is not None) == compared
  assert cells['ab_distance'].difference is not None


def test_infinite_figures(table, rows):
  cell = table['truth']['psnr']
  assert np.isposinf(cell.interval.mean)
  assert cell.difference is None, 'of infinity'
  assert not cell.is_significant
  other = comparison.compare(rows, against='truth')['grey']['psnr']
  assert other.difference is None, 'from infinity'
  np.testing.assert_allclose(other.interval.mean, 20)
  below = comparison.compare([_row('a', {'bits_per_dim': np.full(N, -np.inf)})],
                             against='a')
  _, lines = comparison.texts(below, [_row('a', {})], ['bits_per_dim'])
  assert lines == [['a', '-∞', '']]


def test_differences_are_over_photographs_that_both_rows_keep():
  """A photograph that a row has exactly right does not count against it."""
  base = np.linspace(20, 30, N)
  base[0] = 60  # nearly right
  ours = base + 1
  ours[:2] = np.inf
  rows = comparison.check([_row('base', {'psnr': base}),
                           _row('ours', {'psnr': ours})], mixed=False)
  cell = comparison.compare(rows, against='base')['ours']['psnr']
  assert cell.interval.n == N - 2
  np.testing.assert_allclose(cell.interval.mean, ours[2:].mean())
  np.testing.assert_allclose(
      [cell.difference.mean, cell.difference.low, cell.difference.high], 1)
  assert cell.is_significant
  text = '\n'.join(comparison.notes(rows, ['psnr'], against='base'))
  assert ('psnr leaves out pictures equal to the photograph: 2 for ours; '
          in text)


def test_texts(table, rows):
  header, lines = comparison.texts(table, rows, COLUMNS)
  assert header == ['method', *COLUMNS[:-1], 'training, s'], 'no LPIPS'
  assert lines[0][1:3] == ['∞', '0.000 (0.000 to 0.000) *']
  assert lines[0][3:] == [''] * 4
  assert lines[1][1].startswith('20.00 (19.')
  assert not lines[1][1].endswith('*'), 'no difference from itself'
  assert lines[2][0] == 'my_mbm'
  assert lines[2][2].endswith(') *')
  assert lines[2][4].endswith(')'), 'nothing to compare it with'
  assert lines[2][-1] == '61'


def test_a_finite_figure_without_an_interval(rows):
  cell = comparison.TableEntry(
      interval=bootstrap.Interval(2.0, np.nan, np.nan, N))
  _, lines = comparison.texts({'truth': {'psnr': cell}}, rows[:1], ['psnr'])
  assert lines == [['truth', '2.00', '']]


def _cells(line):
  assert line.startswith('| ')
  assert line.endswith(' |')
  return [text.strip() for text in re.split(r'(?<!\\)\|', line[1:-1])]


def test_markdown_is_a_table(table, rows):
  renamed = [dataclasses.replace(row, name=row.name.replace('truth', 'a|b'))
             for row in rows]
  table = {name.replace('truth', 'a|b'): cells for name, cells in table.items()}
  text = comparison.markdown(table, renamed, COLUMNS, against='grey')
  written, noted = text.split('\n\n')
  lines = written.splitlines()
  assert len(lines) == 2 + len(rows)
  assert {len(_cells(line)) for line in [lines[0], *lines[2:]]} == {7}
  assert lines[1] == '|---|--:|--:|--:|--:|--:|--:|'
  assert _cells(lines[2])[0] == r'a\|b'
  assert _cells(lines[2])[-1] == ''
  assert noted.endswith('\n')
  for line in noted.splitlines():
    assert not re.match(r'[*+#>|-]|\d+[.)]', line), 'no list, no heading'


_COMMANDS = (r'\\(toprule|midrule|bottomrule|infty|dagger|textbackslash\{\}|'
             r'textasciitilde\{\}|textasciicircum\{\})|'
             r'\\(begin|end)\{tabular\}(\{lr*\})?')


def test_latex_is_escaped_and_even(table, rows):
  odd = r'50%_#1 & $x$ {~^\}'
  renamed = [dataclasses.replace(row, name=row.name.replace('truth', odd))
             for row in rows]
  renamed[2] = dataclasses.replace(renamed[2], note='other pixels')
  table = {name.replace('truth', odd): cells for name, cells in table.items()}
  text = comparison.latex(table, renamed, COLUMNS, against='grey')
  lines = [line for line in text.splitlines() if not line.startswith('% ')]
  assert lines[0] == r'\begin{tabular}{lrrrrrr}'
  assert lines[1::2][:1] == [r'\toprule']
  assert lines[-2:] == [r'\bottomrule', r'\end{tabular}']
  body = [line for line in lines if line.endswith(r' \\')]
  assert len(body) == 1 + len(rows)
  for line in body:
    assert len(re.split(r'(?<!\\)&', line)) == 7
  assert body[1].startswith(
      r'50\%\_\#1 \& \$x\$ \{\textasciitilde{}\textasciicircum{}'
      r'\textbackslash{}\} & $\infty$ & ')
  assert body[3].startswith(r'my\_mbm$^\dagger$ & ')
  assert '$^*$ &' in body[3]
  for line in lines:
    bare = re.sub(_COMMANDS, '', line.removesuffix(r'\\'))
    bare = re.sub(r'\\[_%&#${}]', '', bare).replace('$^', '').replace('$', '')
    assert not re.search(r'[_%#\\~^{}∞†]', bare), line
    assert line.isascii()


def test_csv_has_every_metric_of_every_row(table, rows):
  read = list(csv.DictReader(io.StringIO(comparison.as_csv(table, rows))))
  assert [(line['row'], line['metric']) for line in read] == [
      (name, metric) for name, cells in table.items() for metric in cells]
  for line in read:
    assert None not in line, 'too many fields'
    assert None not in line.values(), 'too few'
    cell = table[line['row']][line['metric']]
    numbers = {
        'mean': cell.interval.mean, 'low': cell.interval.low,
        'high': cell.interval.high, 'photographs': cell.interval.n,
        'seeds': 2 if line['row'] == 'my_mbm' else 1,
        'seed_std': cell.seed_std, 'p': cell.p,
        'seconds': 61.4 if line['row'] == 'my_mbm' else None,
        **{f'difference{end}': getattr(cell.difference, field, None)
           for end, field in (('', 'mean'), ('_low', 'low'),
                              ('_high', 'high'))}}
    for name, number in numbers.items():
      if number is None:
        assert line[name] == '', name
      else:
        np.testing.assert_allclose(
            float(line[name]), number, rtol=1e-5, atol=1e-12, err_msg=name)
    assert line['note'] == ''


def test_notes_say_what_must_be_known(rows):
  text = '\n'.join(comparison.notes(rows, COLUMNS, against='grey'))
  for part in (
      '60 photographs, protocol folder version 1, 16 x 16 crop; ',
      'photographs and training seeds, where there are several (2 of my_mbm).',
      'A * marks what differs from grey', 'p < 0.05', 'not corrected',
      'K = 8 proposals, n = 4 samples, 19 draws; pixels 0123456789ab; ',
      '3 photographs grey by nature; 1 left out.',
      'bits_per_dim are of the ab field at 4 x 4, exact (my_mbm); '):
    assert part in text
  assert 'in the training set' not in text, 'none was named'
  assert '†' not in text
  without = comparison.notes(rows, ['psnr'], against='grey')
  assert not any('bits_per_dim' in line for line in without)
  alone = comparison.notes(rows[:2], COLUMNS, against='grey')
  assert 'one training seed each' in alone[0]
  assert not any('bits_per_dim' in line for line in alone)


@pytest.mark.parametrize(('found', 'drops', 'said'), [
    (('x', 'y'), True, '2 photographs were in the training set too (left'),
    (('x', 'y'), False, '2 photographs were in the training set too (not left'),
    ((), True, '0 photographs were in the training set too')])
def test_notes_say_what_was_trained_on(distance, found, drops, said):
  row = _row('a', {'ab_distance': distance}, near_duplicates=found,
             drops_near_duplicates=drops)
  assert said in comparison.notes([row], [], against='a')[-1]


def test_rows_of_one_kind_are_named_together(rows):
  again = dataclasses.replace(rows[-1], name='another_mbm')
  text = comparison.notes([*rows, again], COLUMNS, against='grey')
  assert '(2 of my_mbm, another_mbm).' in text[0]
  assert any('at 4 x 4, exact (my_mbm, another_mbm); a' in line
             for line in text)


@pytest.mark.parametrize(('number', 'is_few'), [(19, True), (20, False)])
def test_notes_warn_of_few_photographs(distance, number, is_few):
  row = _row('a', {'ab_distance': distance[:number]},
             photographs=('x',) * number)
  said = any(line.startswith(f'{number} photographs are few')
             for line in comparison.notes([row], [], against='a'))
  assert said == is_few
