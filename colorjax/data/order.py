"""Random numbers of the pipeline, as functions of (seed, example number).

They are computed from raw 64-bit words of Philox. NumPy guarantees that these
never change; it does not guarantee this for its permutations and floats. So a
run that is repeated with another version of NumPy sees the same photographs,
crops and flips.
"""

import functools
import threading
from collections.abc import Callable

import numpy as np

# Each use of random numbers has a purpose number of its own.
_ORDER, _AUGMENT, _REGION = 0, 1, 2


def _words(seed: int, purpose: int, number: int, count: int) -> np.ndarray:
  """Random words, uint64 [count]."""
  sequence = np.random.SeedSequence(seed, spawn_key=(purpose, number))
  return np.random.Philox(sequence).random_raw(count)


def epoch_order(seed: int, epoch: int, size: int) -> np.ndarray:
  """The random order of the photographs in an epoch.

  Args:
    seed: at least 0.
    epoch: at least 0.
    size: number of photographs.

  Returns:
    int64 [size], a permutation of 0 ... size - 1.
  """
  return np.argsort(_words(seed, _ORDER, epoch, size), kind='stable')


def index_lookup(seed: int, size: int) -> Callable[[int], int]:
  """Maps the number of a training example to the index of its photograph.

  Example n is entry n mod size of the order of epoch n // size. So every
  photograph occurs once in each epoch, for any batch size.

  Args:
    seed: at least 0.
    size: number of photographs.

  Returns:
    The function `n -> index`. It caches the orders of two epochs.
  """
  order_of = functools.lru_cache(maxsize=2)(
      lambda epoch: epoch_order(seed, epoch, size).astype(np.int32))
  lock = threading.Lock()

  def index_of(n):
    with lock:  # Otherwise all threads would compute the next order at once.
      epoch = order_of(n // size)
    return int(epoch[n % size])

  return index_of


def uniforms(seed: int, example: int, count: int) -> np.ndarray:
  """Random numbers for the augmentation of one example.

  Args:
    seed: at least 0.
    example: number of the example in the run.
    count: how many numbers to return.

  Returns:
    float64 [count], uniform in [0, 1).
  """
  return _floats(_words(seed, _AUGMENT, example, count))


def region_uniforms(seed: int, example: int, count: int) -> np.ndarray:
  """Random numbers for the region of one example, independent of `uniforms`.

  Args:
    seed: at least 0.
    example: number of the example in the run.
    count: how many numbers to return. A larger count only appends numbers.

  Returns:
    float64 [count], uniform in [0, 1).
  """
  return _floats(_words(seed, _REGION, example, count))


def _floats(words: np.ndarray) -> np.ndarray:
  return (words >> np.uint64(11)) * 2.0**-53
