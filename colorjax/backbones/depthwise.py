"""Depthwise convolutions that are fast on CPUs too."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

_Pair = tuple[int, int]


def convolve(inputs: jax.Array, kernel: jax.Array, strides: Sequence[int],
             padding: str | Sequence[tuple[int, int]], **settings: Any
             ) -> jax.Array:
  """Depthwise convolution, for the argument `conv_general_dilated` of nn.Conv.

  XLA's own one is 5 to 60 times slower on CPUs (jaxlib 0.10), and its gradient
  4 to 11 times. So there the result is a sum of shifted images, one for each
  pixel of the kernel, which XLA computes in a single loop. Other devices use
  `lax.conv_general_dilated`.

  Args:
    inputs: [B, H, W, C].
    kernel: [h, w, 1, C].
    strides: of rows and columns.
    padding: 'SAME', 'VALID', or pixels before and after rows and columns.
    **settings: further arguments of `lax.conv_general_dilated`; no dilation.

  Returns:
    [B, H', W', C].
  """
  for name in ('lhs_dilation', 'rhs_dilation'):
    assert set(settings.get(name) or (1,)) == {1}, f'{name} is not supported'
  assert kernel.shape[2:] == (1, inputs.shape[3]), 'one kernel for each channel'

  sides = kernel.shape[:2]
  if isinstance(padding, str):
    padding = lax.padtype_to_pads(inputs.shape[1:3], sides, strides, padding)

  def general(inputs, kernel):
    return lax.conv_general_dilated(
        inputs, kernel, strides, padding, **settings)

  def shifted(inputs, kernel):
    return _sum_of_shifted(inputs, kernel, tuple(strides), tuple(padding))

  return lax.platform_dependent(inputs, kernel, cpu=shifted, default=general)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _sum_of_shifted(inputs: jax.Array, kernel: jax.Array, strides: _Pair,
                    padding: tuple[_Pair, _Pair]) -> jax.Array:
  """The convolution as a sum over the pixels of the kernel."""
  return sum((part * kernel[i, j, 0] for i, j, part
              in _parts(inputs, kernel.shape, strides, padding)),
             jnp.zeros((), inputs.dtype))


def _forward(inputs: jax.Array, kernel: jax.Array, strides: _Pair,
             padding: tuple[_Pair, _Pair]) -> tuple[jax.Array, Any]:
  return _sum_of_shifted(inputs, kernel, strides, padding), (inputs, kernel)


def _backward(strides: _Pair, padding: tuple[_Pair, _Pair],
              saved: tuple[jax.Array, jax.Array], gradient: jax.Array
              ) -> tuple[jax.Array, jax.Array]:
  """The gradients; JAX's own would take three times as long to compile."""
  inputs, kernel = saved
  # The gradient of the inputs is a convolution with the kernel turned by 180
  # degrees. It starts at the pixels that the strides have left.
  spread = [(0, 0, 0)]
  for n, side, size, stride, (low, _) in zip(
      inputs.shape[1:3], kernel.shape[:2], gradient.shape[1:3], strides,
      padding, strict=True):
    before = side - 1 - low
    after = n + low - ((size - 1) * stride + 1)
    spread.append((before, after, stride - 1))
  dilated = lax.pad(gradient, jnp.zeros((), gradient.dtype),
                    [*spread, (0, 0, 0)])
  to_inputs = _sum_of_shifted(
      dilated, kernel[::-1, ::-1], (1, 1), ((0, 0), (0, 0)))
  products = [(part * gradient).astype(jnp.float32) for _, _, part
              in _parts(inputs, kernel.shape, strides, padding)]
  to_kernel = _sums(products).astype(kernel.dtype)
  return to_inputs, to_kernel.reshape(kernel.shape)


def _sums(products: Sequence[jax.Array]) -> jax.Array:
  """Sums of arrays [B, H, W, C] over all but channels, [len(products), C].

  Without intermediate sums over rows of pixels XLA reads all of memory once for
  each channel, which takes 5 to 12 times as long. It would remove them if the
  second sum were not written as a product with ones.
  """
  zeros = [jnp.zeros((), products[0].dtype)] * len(products)
  rows = lax.reduce(
      list(products), zeros,
      lambda left, right: [a + b for a, b in zip(left, right, strict=True)],
      (2,))
  flat = jnp.stack([x.reshape(-1, x.shape[-1]) for x in rows])
  return jnp.einsum('pnc,n->pc', flat, jnp.ones(flat.shape[1]))


_sum_of_shifted.defvjp(_forward, _backward)


def _parts(inputs: jax.Array, shape: tuple[int, ...], strides: _Pair,
           padding: tuple[_Pair, _Pair]
           ) -> Iterator[tuple[int, int, jax.Array]]:
  """The inputs that each pixel (i, j) of a kernel is multiplied with."""
  padded = jnp.pad(inputs, ((0, 0), *padding, (0, 0)))
  rows, columns = ((n - side) // stride * stride + 1 for n, side, stride
                   in zip(padded.shape[1:3], shape, strides, strict=False))
  for i in range(shape[0]):
    for j in range(shape[1]):
      yield i, j, padded[:, i:i + rows:strides[0], j:j + columns:strides[1]]
