"""A small autoregressive method, and its network as oracles see it."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

from colorjax import quantize
from colorjax.methods import autoregressive, known
from colorjax.models import autoregressive as model
from colorjax.models import trunk

SMALL = {'filters': (16,), 'width': 8, 'depth': 1, 'num_heads': 2,
         'upsampler_width': 16}
TINY = {'symbol_stride': 2, 'bin_spacing': 100}
"""With photographs of 4 x 4 pixels: 2 x 2 places, three symbols."""
SIZE = 16


@functools.cache
def method(size=SIZE, **settings):
  """A colorizer and random variables."""
  colorizer = autoregressive.build(**{**SMALL, **settings})
  rng = np.random.default_rng(1)
  return colorizer, jax.tree.map(
      lambda x: rng.normal(0, 0.3, x.shape).astype(x.dtype), jax.eval_shape(
          lambda: colorizer.init(jax.random.key(0), (size, size))))


def net_of(spacing, ratio):
  """The network of `method` and the colors of its symbols."""
  bins = quantize.published_bins()
  bins = bins[(bins % spacing == 0).all(-1)]
  return model.SymbolsAndColors(
      trunk.build('unet', SMALL['filters'], jnp.float32),
      tuple(map(tuple, bins / 20)), ratio, width=SMALL['width'],
      depth=SMALL['depth'], num_heads=SMALL['num_heads'],
      upsampler_width=SMALL['upsampler_width']), bins


def parts(net, variables, lightness, given, symbols):
  """Log probabilities [n, m, Q], locations and scales [h, w, 2] in Lab units.

  Of each photograph, from the outputs of the network, in NumPy.
  """
  logits, colors = jax.jit(functools.partial(net.apply, train=False))(
      {'params': variables['params']}, lightness / 50 - 1,
      jnp.concatenate([given.ab / 20, given.mask, given.region], -1), symbols)
  location, raw = np.moveaxis(np.asarray(colors, np.float64), -1, 0)
  # softplus(raw + c) + 0.01, which is 0.2 for raw = 0.
  scale = 0.01 + np.logaddexp(0, raw + np.log(np.expm1(0.19)))
  return (scipy.special.log_softmax(np.asarray(logits, np.float64), axis=-1),
          20 * location, 20 * scale)


def nothing_known(n, side):
  return known.Known(jnp.zeros((n, side, side, 2)),
                     jnp.zeros((n, side, side, 1)),
                     jnp.ones((n, side, side, 1)))


def all_symbols():
  """All 81 fields of 2 x 2 symbols."""
  return np.array(list(itertools.product(range(3), repeat=4)),
                  np.int32).reshape(-1, 2, 2)


def log_prob_of(log_probs, symbols):
  """Of each place, [B, n, m]."""
  return np.take_along_axis(log_probs, symbols[..., None], -1)[..., 0]
