"""The texts of a comparison: Markdown, LaTeX, CSV and the notes."""

import csv
import dataclasses
import io
import re

import numpy as np
import pytest
from example_results import NUM_PHOTOS, ab_distances, make_row, three_rows

from colorjax.evaluation import comparison, comparison_table
from colorjax.metrics import bootstrap

COLUMNS = ['psnr', 'ab_distance', 'auc_rebalanced', 'best_of_k',
           'bits_per_dim', 'lpips_vgg']


@pytest.fixture(scope='module')
def distance():
  return ab_distances()


@pytest.fixture(scope='module')
def rows():
  return three_rows()


@pytest.fixture(scope='module')
def table(rows):
  return comparison.compare(rows, against='grey')


def test_texts(table, rows):
  header, lines = comparison_table.texts(table, rows, COLUMNS)
  assert header == ['method', *COLUMNS[:-1], 'training, s'], 'no LPIPS'
  assert lines[0][1:3] == ['∞', '0.000 (0.000 to 0.000) *']
  assert lines[0][3:] == [''] * 4
  assert lines[1][1].startswith('20.00 (19.')
  assert not lines[1][1].endswith('*'), 'no difference from itself'
  assert lines[2][0] == 'my_mbm'
  assert lines[2][2].endswith(') *')
  assert lines[2][4].endswith(')'), 'the chosen row has no value'
  assert lines[2][-1] == '61'


def test_a_finite_value_without_an_interval(rows):
  cell = comparison.TableEntry(
      interval=bootstrap.Interval(2.0, np.nan, np.nan, NUM_PHOTOS))
  _, lines = comparison_table.texts(
      {'truth': {'psnr': cell}}, rows[:1], ['psnr'])
  assert lines == [['truth', '2.00', '']]


def _cells(line):
  assert line.startswith('| ')
  assert line.endswith(' |')
  return [text.strip() for text in re.split(r'(?<!\\)\|', line[1:-1])]


def test_markdown_is_a_table(table, rows):
  renamed = [dataclasses.replace(row, name=row.name.replace('truth', 'a|b'))
             for row in rows]
  table = {name.replace('truth', 'a|b'): cells for name, cells in table.items()}
  text = comparison_table.markdown(table, renamed, COLUMNS, against='grey')
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


def test_latex_is_escaped_and_has_equal_rows(table, rows):
  odd = r'50%_#1 & $x$ {~^\}'
  renamed = [dataclasses.replace(row, name=row.name.replace('truth', odd))
             for row in rows]
  renamed[2] = dataclasses.replace(renamed[2], note='other pixels')
  table = {name.replace('truth', odd): cells for name, cells in table.items()}
  text = comparison_table.latex(table, renamed, COLUMNS, against='grey')
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
  read = list(csv.DictReader(io.StringIO(comparison_table.as_csv(table, rows))))
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


def test_notes_describe_protocol_and_settings(rows):
  text = '\n'.join(comparison_table.notes(rows, COLUMNS, against='grey'))
  for part in (
      '60 photographs, protocol folder version 1, 16 x 16 crop; ',
      'over training seeds where there are several (2 of my_mbm).',
      'A star marks a significant difference from grey', 'p < 0.05',
      'not corrected',
      'K = 8 proposals, n = 4 samples, 19 draws; SHA-256 of the pixels '
      '0123456789ab; ',
      '3 photographs grey by nature; 1 left out.',
      'Resolution of the ab field of bits_per_dim: 4 x 4, exact (my_mbm); '):
    assert part in text
  assert 'in the training set' not in text, 'no training set was given'
  assert '†' not in text
  without = comparison_table.notes(rows, ['psnr'], against='grey')
  assert not any('bits_per_dim' in line for line in without)
  alone = comparison_table.notes(rows[:2], COLUMNS, against='grey')
  assert 'each method has one training seed' in alone[0]
  assert not any('bits_per_dim' in line for line in alone)


@pytest.mark.parametrize(('found', 'drops', 'said'), [
    (('x', 'y'), True, '2 photographs are also in the training set (left'),
    (('x', 'y'), False, '2 photographs are also in the training set (not left'),
    ((), True, '0 photographs are also in the training set')])
def test_notes_count_near_duplicates(distance, found, drops, said):
  row = make_row('a', {'ab_distance': distance}, near_duplicates=found,
             drops_near_duplicates=drops)
  assert said in comparison_table.notes([row], [], against='a')[-1]


def test_rows_with_the_same_property_are_grouped(rows):
  again = dataclasses.replace(rows[-1], name='another_mbm')
  text = comparison_table.notes([*rows, again], COLUMNS, against='grey')
  assert '(2 of my_mbm, another_mbm).' in text[0]
  assert any(': 4 x 4, exact (my_mbm, another_mbm); a' in line
             for line in text)


@pytest.mark.parametrize(('number', 'is_few'), [(19, True), (20, False)])
def test_notes_warn_of_few_photographs(distance, number, is_few):
  row = make_row('a', {'ab_distance': distance[:number]},
             photographs=('x',) * number)
  said = any(line.startswith(f'With only {number} photographs')
             for line in comparison_table.notes([row], [], against='a'))
  assert said == is_few
