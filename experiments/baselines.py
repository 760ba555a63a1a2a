"""Measures baselines that need no training.

    python -m experiments.baselines --method=mean_color --data=folder:PATH \\
        --eval_data=folder:PATH --workdir=runs/mean_color

The run computes the parameters of the method, if it has any, from the training
photographs or from a reference, and then measures it on held-out photographs.
`colorize`, `evaluate` and `compare` accept the work directory like that of a
trained method.

    grey          no color
    mean_color    the mean color of --data at every pixel
    marginal      each pixel is drawn from the distribution of colors in --data;
                  a learned density should be better than this one
    reinhard      transfers the chroma statistics of --reference; a grey
                  photograph gets one color, the mean of the reference
    welsh         each pixel takes the color of a similar pixel of --reference
    levin         spreads color hints along the lightness; grey without hints
"""

from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from colorjax.errors import UserError
from experiments import common, script

common.define_measuring_flags()
flags.adopt_module_key_flags(common)

_METHODS = ('grey', 'mean_color', 'marginal', 'reinhard', 'welsh', 'levin')
_NEED_REFERENCE = ('reinhard', 'welsh')

_METHOD = flags.DEFINE_enum('method', None, _METHODS, 'The baseline.',
                            required=True)
_REFERENCE = flags.DEFINE_string(
    'reference', None, 'Color photograph whose colors are transferred, for '
    '--method=reinhard and --method=welsh.')
_GRID = flags.DEFINE_integer(
    'grid', 14, 'For --method=welsh: the number of candidate pixels of the '
    'reference is grid x grid.', lower_bound=1)
_LEVIN_FORM = flags.DEFINE_enum(
    'levin_form', 'energy', ['energy', 'equations'], 'For --method=levin: '
    'minimize the energy of the paper, or solve the equations of its authors\' '
    'program.')


def main(argv: Sequence[str]) -> int:
  """Measures and reports a baseline."""
  del argv
  method = _METHOD.value
  _check_reference(method)
  settings: dict[str, dict[str, Any]] = {
      'welsh': {'grid': _GRID.value}, 'levin': {'form': _LEVIN_FORM.value}}
  return common.run_without_training(
      f'colorjax.methods.baselines.{method}', settings.get(method, {}),
      variables_from=lambda variables, feed: {
          **variables, 'params': _params(method, variables, feed)})


def _check_reference(method: str) -> None:
  """Raises UserError if a reference is missing, or given but not used."""
  if (_REFERENCE.value is not None) != (method in _NEED_REFERENCE):
    raise UserError(
        f'--method={method} needs --reference=FILE, a color photograph'
        if method in _NEED_REFERENCE else
        f'--reference={_REFERENCE.value}: --method={method} uses no reference; '
        f'{" and ".join(_NEED_REFERENCE)} do')


def _params(method: str, variables: Mapping[str, Any], feed: Any) -> Any:
  """The parameters of a method, computed from photographs."""
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
  script.run(main)
