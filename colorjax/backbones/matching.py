"""Matches the tensors of a weights file to those of a network."""

import dataclasses
import difflib
import itertools
from collections.abc import Mapping, Sequence

from colorjax.backbones import tensor_names
from colorjax.backbones.weights_files import Contents

FOLDED = 'folded'
"""Collection of batch norm scales that a file has but the network does not;
`convert` multiplies them into the preceding convolutions."""

# Names of layer classes in Keras 3, which numbers layers within their class.
_CLASSES = {'conv': 'conv2d', 'separable': 'separable_conv2d',
            'norm': 'batch_normalization', 'dense': 'dense'}
# The kind of a layer by the ranks of its tensors; otherwise it is a batch norm.
_KINDS = {(4, 1): 'conv', (4,): 'conv', (4, 4): 'separable',
          (2, 1): 'dense', (2,): 'dense'}
# Suffix of counters in torch's batch norms; they have no effect on inference.
_COUNTER = '.num_batches_tracked'

FileLayer = tuple[str, tuple[str, ...]]


@dataclasses.dataclass(frozen=True)
class Match:
  """The result of comparing a file with a network.

  Attributes:
    found: tensors of the network, each with its name in the file.
    missing: names of tensors that the file lacks.
    extra: names of tensors that the network lacks.
    misshapen: descriptions of tensors with different shapes.
    lacks_only_classifier: whether the file lacks the classifier and matches
      otherwise.
  """
  found: tuple[tuple[tensor_names.Tensor, str], ...]
  missing: tuple[str, ...]
  extra: tuple[str, ...]
  misshapen: tuple[str, ...]
  lacks_only_classifier: bool

  @property
  def complete(self) -> bool:
    """Whether the file and the network have the same tensors."""
    return not (self.missing or self.extra or self.misshapen)


def match(
    contents: Contents, layers: Sequence[tensor_names.Layer], *, top: bool,
    passed_over: tuple[str, ...] = (),
) -> Match:
  """Compares a file with a network.

  Args:
    contents: the opened file.
    layers: layers of the network.
    top: whether to compare the classifier; if not, a classifier in the file is
      ignored.
    passed_over: prefixes of tensor names in the file to ignore.
  """
  if contents.naming == 'legacy':
    names = _legacy_names(contents, layers)
  elif contents.naming == 'keras':
    names = _keras_names(layers)
  else:
    names = _torch_names(layers)
  head = {tensor for layer in layers if layer.kind == 'dense'
          for tensor in layer.tensors}
  found, missing, misshapen = [], {}, []
  for tensor, key in names.items():
    if tensor in head and not top:
      continue
    wanted = _file_shape(tensor, contents.naming)
    if key not in contents.tensors:
      missing[tensor] = key
    elif tuple(contents.tensors[key].shape) != wanted:
      shape = list(contents.tensors[key].shape)
      misshapen.append(f'{key} is {shape} instead of {list(wanted)}')
    else:
      found.append((tensor, key))
  known = set(names.values())
  extra = tuple(key for key in contents.tensors
                if key not in known and not key.endswith(_COUNTER)
                and not key.startswith(passed_over))
  return Match(tuple(found), tuple(missing.values()), extra, tuple(misshapen),
               lacks_only_classifier=(
                   set(missing) == head and not (extra or misshapen)))


def _file_shape(tensor: tensor_names.Tensor, naming: str) -> tuple[int, ...]:
  """The shape that a tensor of the network has in a file."""
  shape = tensor.shape
  if naming == 'torch':
    # Output channels first, then input channels, then height and width.
    return (*shape[:-3:-1], *shape[:-2]) if len(shape) > 1 else shape
  if tensor.keras == 'depthwise_kernel':
    return (*shape[:2], *shape[:-3:-1])
  return shape


def _torch_names(
    layers: Sequence[tensor_names.Layer]) -> dict[tensor_names.Tensor, str]:
  """Names of the network's tensors in a state dict of torch."""
  names = {}
  for layer in layers:
    tensors = list(layer.tensors)
    if layer.kind == 'norm' and tensors[0].keras != 'gamma':
      # Batch norms in torch always have a scale.
      tensors.append(tensor_names.Tensor(
          (FOLDED, *layer.path), tensors[0].shape, 'gamma',
          f'{layer.torch}.weight'))
    names.update({tensor: tensor.torch for tensor in tensors})
  return names


def _keras_names(
    layers: Sequence[tensor_names.Layer]) -> dict[tensor_names.Tensor, str]:
  """Names of the network's tensors in a file of Keras 3."""
  names = {}
  counts = dict.fromkeys(_CLASSES, 0)
  for layer in layers:
    number = counts[layer.kind]
    counts[layer.kind] += 1
    group = _CLASSES[layer.kind] + (f'_{number}' if number else '')
    names.update({tensor: f'{group}/vars/{i}'
                  for i, tensor in enumerate(layer.tensors)})
  return names


def _legacy_names(contents: Contents, layers: Sequence[tensor_names.Layer]
                  ) -> dict[tensor_names.Tensor, str]:
  """Names of the network's tensors in a file of the legacy layout.

  Layers are matched by name or, if Keras numbers them automatically, by order.
  """
  by_name = {entry[0]: entry for entry in contents.layers}
  named = {layer.keras for layer in layers} & set(by_name)
  names: dict[tensor_names.Tensor, str] = {}
  for layer in layers:
    if layer.keras is not None and layer.keras in named:
      names.update(_pair_tensors(layer, by_name[layer.keras]))
  for kind in _CLASSES:
    entries = [entry for entry in contents.layers
               if entry[0] not in named and _kind(contents, entry) == kind]
    unnamed = [layer for layer in layers
               if layer.keras not in named and layer.kind == kind]
    for layer, entry in _align(contents, unnamed, entries):
      names.update(_pair_tensors(layer, entry))
  return names


def _kind(contents: Contents, entry: FileLayer) -> str:
  """The kind of a layer in a file of the legacy layout."""
  ranks = tuple(len(contents.tensors[key].shape) for key in entry[1]
                if key in contents.tensors)
  return _KINDS.get(ranks, 'norm')


def _align(
    contents: Contents, layers: Sequence[tensor_names.Layer],
    entries: Sequence[FileLayer]
) -> list[tuple[tensor_names.Layer, FileLayer | None]]:
  """Pairs the layers of a network with those of a file, in order.

  If their numbers differ, the shapes of neighboring layers show which one is
  missing or extra, so that a missing layer does not shift all later pairs.
  """
  in_network = [tuple(_file_shape(t, 'legacy') for t in layer.tensors)
                for layer in layers]
  in_file = [tuple(tuple(contents.tensors[key].shape) for key in keys
                   if key in contents.tensors) for _, keys in entries]
  pairs = []
  for _, i, j, k, m in difflib.SequenceMatcher(
      None, in_network, in_file, autojunk=False).get_opcodes():
    pairs += [(layer, entry) for layer, entry
              in itertools.zip_longest(layers[i:j], entries[k:m])
              if layer is not None]
  return pairs


def _pair_tensors(layer: tensor_names.Layer, entry: FileLayer | None
                  ) -> Mapping[tensor_names.Tensor, str]:
  """Tensors of a layer with their names in the file, in order."""
  name, keys = entry or (layer.keras or '/'.join(layer.path), ())
  if len(keys) != len(layer.tensors):
    # A tensor is missing or extra: match the others by their own names.
    own = {key.split('/')[-1].split(':')[0]: key for key in keys}
    keys = tuple(own.get(tensor.keras, f'{name}/{tensor.keras}')
                 for tensor in layer.tensors)
  return dict(zip(layer.tensors, keys, strict=True))
