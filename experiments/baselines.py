"""Baselines that need no training, in work directories like any other.

    python -m experiments.baselines --method=mean_color --data=folder:PATH \\
        --eval_data=folder:PATH --workdir=runs/mean_color

The run measures the method's numbers, if it has any, on the training
photographs or on a reference, and then its held-out figures. `colorize` and
comparisons take the work directory as they take that of a trained method.

    grey          the photograph as it is
    mean_color   the mean color of --data on every pixel
    marginal      each pixel drawn from the colors of --data: the density to
                  beat
    reinhard      chroma statistics of --reference; of a grey photograph they
                  make one color, the mean of the reference
    welsh         each pixel takes the color of a like pixel of --reference
    levin         spreads color hints along lightness; grey without hints
"""

from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from colorjax.errors import UserError
from experiments import common

common.define_measuring_flags()
flags.adopt_module_key_flags(common)

_METHODS = ('grey', 'mean_color', 'marginal', 'reinhard', 'welsh', 'levin')
_NEED_REFERENCE = ('reinhard', 'welsh')

_METHOD = flags.DEFINE_enum('method', None, _METHODS, 'The baseline.',
                            required=True)
_REFERENCE = flags.DEFINE_string(
    'reference', None, 'Color photograph whose colors are transferred, with '
    '--method=reinhard or welsh.')
_GRID = flags.DEFINE_integer(
    'grid', 14, 'welsh takes grid x grid candidates from the reference.',
    lower_bound=1)
_LEVIN_FORM = flags.DEFINE_enum(
    'levin_form', 'energy', ['energy', 'equations'], 'levin minimizes the '
    "energy of the paper, or solves the equations of its authors' program.")


def main(argv: Sequence[str]) -> int:
  """Measures and reports a baseline."""
  del argv
  method = _METHOD.value
  _check_reference(method)
  settings: dict[str, dict[str, Any]] = {
      'welsh': {'grid': _GRID.value}, 'levin': {'form': _LEVIN_FORM.value}}
  return common.settle(
      f'colorjax.methods.baselines.{method}', settings.get(method, {}),
      variables_from=lambda variables, feed: {
          **variables, 'params': _numbers(method, variables, feed)})


def _check_reference(method: str) -> None:
  """Refuses a reference that is missing, or that nobody asks for."""
  if (_REFERENCE.value is not None) != (method in _NEED_REFERENCE):
    raise UserError(
        f'--method={method} needs --reference=FILE, a color photograph'
        if method in _NEED_REFERENCE else
        f'--reference={_REFERENCE.value}: --method={method} takes none; '
        f'{" and ".join(_NEED_REFERENCE)} do')


def _numbers(method: str, variables: Mapping[str, Any], feed: Any) -> Any:
  """The method's params, measured."""
  import jax

  from colorjax import photo
  from colorjax.data import augment
  from colorjax.methods.baselines import marginal, reinhard, welsh

  if method == 'mean_color':
    return {'mean_ab': feed.mean_color()}
  if method == 'marginal':
    return {'shares': feed.mean_of(marginal.histogram)}
  if _REFERENCE.value is None:
    return variables['params']
  image = augment.fit_square(
      photo.to_rgb8(photo.read(_REFERENCE.value)), flags.FLAGS.image_size,
      flags.FLAGS.fit)
  if method == 'reinhard':
    return reinhard.statistics(image)
  return welsh.candidates(
      jax.random.key(flags.FLAGS.seed), image, grid=_GRID.value)


if __name__ == '__main__':
  common.run(main)
