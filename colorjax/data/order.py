"""Randomness of the pipeline: numbers that are functions of (seed, n).

Philox is read as raw 64-bit words, which numpy promises never to change (its
permutations and floats it does not): a run replayed under another numpy sees
the same photographs, crops and flips.
"""

import functools
import threading
from collections.abc import Callable

import numpy as np

# Which use the numbers are for: no two may share.
_ORDER, _AUGMENT, _REGION = 0, 1, 2


def _words(seed: int, purpose: int, number: int, count: int) -> np.ndarray:
  sequence = np.random.SeedSequence(seed, spawn_key=(purpose, number))
  return np.random.Philox(sequence).random_raw(count)


def epoch_order(seed: int, epoch: int, size: int) -> np.ndarray:
  """A random permutation, a function of its arguments.

  Args:
    seed: at least 0.
    epoch: at least 0.
    size: number of photographs.

  Returns:
    int64 [size], each of 0 ... size - 1 once.
  """
  return np.argsort(_words(seed, _ORDER, epoch, size), kind='stable')


def index_lookup(seed: int, size: int) -> Callable[[int], int]:
  """Which photograph is the n-th example of an endless training run.

  Example n is photograph n mod size of the order of epoch n // size, so every
  photograph comes once an epoch, whatever the batch size.

  Args:
    seed: at least 0.
    size: number of photographs.

  Returns:
    `n -> index`. It remembers the orders of two epochs, for speed only.
  """
  order_of = functools.lru_cache(maxsize=2)(
      lambda epoch: epoch_order(seed, epoch, size).astype(np.int32))
  lock = threading.Lock()

  def index_of(n):
    with lock:  # Else every thread would sort at the turn of an epoch.
      epoch = order_of(n // size)
    return int(epoch[n % size])

  return index_of


def uniforms(seed: int, example: int, count: int) -> np.ndarray:
  """Random numbers of one example's augmentation.

  Args:
    seed: at least 0.
    example: number n of the example in the run.
    count: how many.

  Returns:
    float64 [count], uniform in [0, 1).
  """
  return _floats(_words(seed, _AUGMENT, example, count))


def region_uniforms(seed: int, example: int, count: int) -> np.ndarray:
  """Random numbers of one example's region; independent of `uniforms`.

  Args:
    seed: at least 0.
    example: number n of the example in the run.
    count: how many; fewer are the first ones of more.

  Returns:
    float64 [count], uniform in [0, 1).
  """
  return _floats(_words(seed, _REGION, example, count))


def _floats(words: np.ndarray) -> np.ndarray:
  return (words >> np.uint64(11)) * 2.0**-53
