"""Results of evaluations that tests make up."""

import numpy as np

from colorjax.evaluation import catalogue, comparison, protocol, result

NUM_PHOTOS = 60


def make_record(**changes):
  """A Record, with the fields of `changes` replaced."""
  fields = {
      'protocol': protocol.folder(16, 'crop'), 'data': 'folder:x',
      'photographs': tuple(f'{i:02}.png' for i in range(NUM_PHOTOS)),
      'pixels': '0123456789abcdef', 'num_proposals': 8, 'num_samples': 4,
      'num_draws': 19, 'seed': 0, 'density': '', 'left_out': ('bad.png: no',),
      'num_grey': 3, 'near_duplicates': None, 'drops_near_duplicates': False,
      'judged': 'x', 'weights': '', 'networks': {}}
  return protocol.Record(**(fields | changes))


def make_result(statistics, **changes):
  """An EvaluationResult with the given statistics of each photograph."""
  return result.EvaluationResult(make_record(**changes), statistics,
                                 catalogue.summarize(statistics))


def make_row(name, *statistics, seconds=None, **changes):
  """A row of a table, with the statistics of each training seed."""
  return comparison.ComparedMethod(name=name, seconds=seconds, results=[
      make_result(one, **changes) for one in statistics])


def ab_distances():
  """Plausible ab distances of the photographs, [NUM_PHOTOS]."""
  return np.random.default_rng(0).gamma(4.0, 3.0, NUM_PHOTOS)


def three_rows():
  """Two rows without training, and a better one with two training seeds."""
  distance = ab_distances()
  area = np.random.default_rng(1).uniform(50, 150, (NUM_PHOTOS, 313))
  count = np.ones((NUM_PHOTOS, 313))
  truth = {'psnr': np.full(NUM_PHOTOS, np.inf),
           'ab_distance': np.zeros(NUM_PHOTOS)}
  grey = {'psnr': np.linspace(18, 22, NUM_PHOTOS), 'ab_distance': distance,
          'auc_rebalanced': np.stack([area, count], 1)}
  seeds = [{'psnr': grey['psnr'] + more, 'ab_distance': distance - 2 * more,
            'auc_rebalanced': np.stack([area, count], 1),
            'best_of_k': distance - 3,
            'bits_per_dim': np.full(NUM_PHOTOS, 5.0)} for more in (1.0, 2.0)]
  return comparison.check([
      make_row('truth', truth), make_row('grey', grey),
      make_row('my_mbm', *seeds, seconds=61.4, density='4 x 4, exact')],
      mixed=False)
