"""Autoregressive symbols: the likelihood and samples against brute force."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from asking import compiled, grey, keys
from small_autoregressive import (
    TINY,
    all_symbols,
    log_prob_of,
    method,
    net_of,
    nothing_known,
    parts,
)

from colorjax.methods import known

pytestmark = pytest.mark.usefixtures('compiles_quickly')


@functools.cache
def _tiny_method():
  """The method of TINY; its symbols depend much on each other."""
  colorizer, variables = method(4, **TINY)
  params = dict(variables['params'])
  for name, factor in (('symbol', 5), ('logits', 3)):
    params[name] = jax.tree.map(lambda x, c=factor: c * x, params[name])
  return colorizer, {**variables, 'params': params}


@functools.cache
def _tiny():
  """For all 81 fields of 2 x 2 symbols: lightness, symbols, and `parts`."""
  _, variables = _tiny_method()
  net, bins = net_of(100, 1)
  symbols = all_symbols()
  lightness = jnp.broadcast_to(jnp.linspace(20., 80., 16).reshape(4, 4, 1),
                               (81, 4, 4, 1))
  log_probs, location, scale = parts(
      net, variables, lightness, nothing_known(81, 2), symbols)
  return lightness, symbols, bins, log_probs, location, scale


class TestLikelihood:

  def test_probabilities_of_all_symbol_fields_sum_to_one(self):
    _, symbols, _, log_probs, _, _ = _tiny()
    p = np.exp(log_prob_of(log_probs, symbols).sum((1, 2)))
    assert p.sum() == pytest.approx(1, abs=1e-6)
    assert p.max() > 5 * p.min()

  def test_it_is_a_bound_on_the_sum_over_all_symbol_fields(self):
    colorizer, variables = _tiny_method()
    lightness, symbols, bins, log_probs, location, scale = _tiny()
    priors = log_prob_of(log_probs, symbols).sum((1, 2))
    # A field near each field of symbols, and fields between two colors.
    rng = np.random.default_rng(0)
    ab = bins[symbols] + rng.normal(0, 20, (81, 2, 2, 2))
    found = compiled(colorizer.log_prob)(
        variables, grey(lightness), ab.repeat(2, 1).repeat(2, 2), keys(81))
    # All pairs of a field and the symbols that may have made it.
    joint = priors + scipy.stats.logistic.logpdf(
        ab[:, None], location, scale).sum((2, 3, 4))
    own = np.square(ab[..., None, :] - bins).sum(-1).argmin(-1)
    numbers = (own.reshape(81, 4) * 3**np.arange(4)[::-1]).sum(1)
    np.testing.assert_allclose(found, joint[np.arange(81), numbers], rtol=1e-4)
    total = scipy.special.logsumexp(joint, axis=1)
    assert (found < total + 1e-3).all()
    assert (total - found).max() > 0.01

  @pytest.mark.parametrize('temperature', [1.0, 0.5])
  def test_samples_have_the_probabilities_of_the_symbols(self, temperature):
    colorizer, variables = _tiny_method()
    lightness, symbols, bins, log_probs, _, _ = _tiny()
    n = 6000
    inputs = grey(jnp.broadcast_to(lightness[:1], (n, 4, 4, 1)))
    if temperature == 1:
      fields = compiled(colorizer.draw, n=1)(variables, inputs, keys(n))[0]
    else:
      # The corners are the field itself.
      fields = compiled(colorizer.sample, n=1, temperature=temperature)(
          variables, inputs, keys(n))[0, :, ::3, ::3]
    found = np.square(np.asarray(fields)[..., None, :] - bins).sum(-1).argmin(
        -1)
    numbers = (found.reshape(n, 4) * 3**np.arange(4)[::-1]).sum(1)
    cold = scipy.special.log_softmax(log_probs / temperature, axis=-1)
    expected = np.exp(log_prob_of(cold, symbols).sum((1, 2)))
    # The three colors are so far apart that noise changes few symbols.
    self._assert_frequencies(np.bincount(numbers, minlength=81), expected)

  def test_unknown_symbols_are_drawn_given_the_known_ones(self):
    """One of the four symbols is hinted: the second in raster order."""
    colorizer, variables = _tiny_method()
    net, _ = net_of(100, 1)
    lightness, symbols, bins, _, _, _ = _tiny()
    mask = np.zeros((81, 2, 2, 1), np.float32)
    mask[:, 0, 1] = 1
    given = known.Known(mask * bins[1], mask, np.ones_like(mask))
    log_probs, _, _ = parts(net, variables, lightness, given, symbols)
    log_probs = log_prob_of(log_probs, symbols)
    free = (log_probs * (1 - mask[..., 0])).sum((1, 2))
    expected = np.where(symbols[:, 0, 1] == 1, np.exp(free), 0)
    assert expected.sum() == pytest.approx(1, abs=1e-6)
    # If the second were drawn too, the others would have other frequencies.
    others = [np.exp(x).reshape(3, 3, 9).sum(1) for x in (
        np.where(symbols[:, 0, 1] == 1, free, -np.inf),
        log_probs.sum((1, 2)))]
    assert np.abs(others[0] - others[1]).sum() > 0.1
    n = 6000
    inputs = {name: jnp.broadcast_to(x[:1], (n, 4, 4, x.shape[-1]))
              for name, x in (('lightness', lightness), ('hint_ab', (
                  mask * bins[1]).repeat(2, 1).repeat(2, 2)), (
                      'hint_mask', mask.repeat(2, 1).repeat(2, 2)))}
    fields = compiled(colorizer.draw, n=1)(variables, inputs, keys(n))[0]
    found = np.square(np.asarray(fields)[..., None, :] - bins).sum(-1).argmin(
        -1)
    numbers = (found.reshape(n, 4) * 3**np.arange(4)[::-1]).sum(1)
    counts = np.bincount(numbers, minlength=81)
    assert not counts[expected == 0].any()
    self._assert_frequencies(counts[expected > 0], expected[expected > 0])

  @staticmethod
  def _assert_frequencies(counts, expected):
    """Pearson's test at 1e-4; small classes are joined."""
    order = np.argsort(expected)
    counts, expected = counts[order], counts.sum() * expected[order]
    first = int((np.cumsum(expected) < 10).sum())
    counts, expected = (np.append(x[:first + 1].sum(), x[first + 1:])
                        for x in (counts, expected))
    error = np.square(counts - expected) / expected
    assert len(error) > 3
    assert error.sum() < scipy.stats.chi2.ppf(1 - 1e-4, len(error) - 1)

  def test_draws_have_the_distribution_of_the_upsampler(self):
    colorizer, variables = _tiny_method()
    lightness, _, bins, _, location, scale = _tiny()
    n = 2000
    fields = np.asarray(compiled(colorizer.draw, n=1)(
        variables, grey(jnp.broadcast_to(lightness[:1], (n, 4, 4, 1))),
        keys(n, 1))[0])
    found = np.square(fields[..., None, :] - bins).sum(-1).argmin(-1)
    numbers = (found.reshape(n, 4) * 3**np.arange(4)[::-1]).sum(1)
    noise = (fields - location[numbers]) / scale[numbers]
    for part in (noise.ravel(), noise[:, 0, 0, 1], noise[:, 1, 0, 0]):
      assert scipy.stats.kstest(part, 'logistic').pvalue > 1e-4
    # Independent in each value.
    flat = noise.reshape(n, -1)
    correlation = np.corrcoef(flat, rowvar=False) - np.eye(8)
    assert np.abs(correlation).max() < 0.1

  def test_without_temperature_each_symbol_is_the_most_probable_one(self):
    colorizer, variables = _tiny_method()
    lightness, symbols, bins, log_probs, _, _ = _tiny()
    prefix = []
    for place in range(4):
      row = next(i for i, s in enumerate(symbols.reshape(81, 4))
                 if list(s[:place]) == prefix)
      prefix.append(int(log_probs[row].reshape(4, 3)[place].argmax()))
    found = compiled(colorizer.sample, n=2, temperature=0)(
        variables, grey(lightness[:1]), keys(1))[:, 0, ::3, ::3]
    found = np.square(np.asarray(found)[..., None, :] - bins).sum(-1).argmin(-1)
    assert found.reshape(2, 4).tolist() == [prefix, prefix]
