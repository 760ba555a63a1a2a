"""Colour hints: what a person would click on, drawn from the photograph itself.

A method that takes hints (`Colorizer.predict_with_hints`) is given the ab of
some pixels and where they are:

  hint_ab     float32 [..., H, W, 2], Lab units, 0 where there is no hint
  hint_mask   float32 [..., H, W, 1], 1 where the ab is given, else 0

Evaluations draw the hints at random from the original, as Zhang et al. 2017
("Real-Time User-Guided Image Colorization with Learned Deep Priors") simulate
a user. The draw is a function of (seed, index of the photograph), so that every
method is asked with the same hints, in any order and batch size.
"""

import jax
import jax.numpy as jnp

from colorjax.errors import UserError


def random_points(key: jax.Array, ab: jax.Array, n: int, size: int = 1
                  ) -> tuple[jax.Array, jax.Array]:
  """Shows the true ab of n squares at random places of one photograph.

  The places are uniform over those where a square lies wholly inside, no two
  are the same, and those of a smaller n are among those of a larger one.
  Squares of more than one pixel may overlap.

  Args:
    key: random key.
    ab: the original, Lab units, [H, W, 2].
    n: number of squares, at least 0; static.
    size: side of a square in pixels; static.

  Returns:
    hint_ab [H, W, 2] and hint_mask [H, W, 1].

  Raises:
    UserError: the photograph has no room for n different squares.
  """
  height, width = ab.shape[:2]
  rows, columns = height - size + 1, width - size + 1
  if size < 1 or not 0 <= n <= max(rows, 0) * max(columns, 0):
    raise UserError(
        f'{n} hints of {size} x {size} pixels asked of a photograph of '
        f'{height} x {width}: ask for fewer or smaller ones')
  # The n largest of independent numbers are n different places, and the
  # larger n is, the more of the same order are taken.
  _, places = jax.lax.top_k(jax.random.uniform(key, (rows * columns,)), n)
  corners = jnp.zeros(rows * columns).at[places].set(1).reshape(rows, columns)
  grown = jnp.pad(corners, size - 1)
  mask = jax.lax.reduce_window(
      grown, 0.0, jax.lax.max, (size, size), (1, 1), 'VALID')[..., None]
  return ab * mask, mask


def random_points_of(seed: int, index: jax.Array, ab: jax.Array, n: int,
                     size: int = 1) -> tuple[jax.Array, jax.Array]:
  """`random_points` of each photograph of a batch, by its place in the source.

  Args:
    seed: of the evaluation.
    index: batch['index'], int32 [B]; padding is -1.
    ab: the originals, Lab units, [B, H, W, 2].
    n: number of squares for each photograph.
    size: side of a square in pixels.

  Returns:
    hint_ab [B, H, W, 2] and hint_mask [B, H, W, 1].
  """
  keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(
      jax.random.key(seed), index)
  return jax.vmap(lambda key, one: random_points(key, one, n, size))(keys, ab)
