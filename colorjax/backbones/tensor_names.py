"""Names of each tensor of a network: in our variables, in Keras and in torch.

Tensors are listed layer by layer, in the order of Keras. The order is needed to
match files: half of the layers of Inception-ResNet-v2 have automatic names,
whose numbers depend on what else was built in the same session. In Keras 3
files all layers have automatic names.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import flax.traverse_util
import jax

from colorjax.backbones import (
  backbone,
  efficientnet_lite,
  inception_resnet,
  vgg,
  xception,
)

Kind = Literal['conv', 'separable', 'norm', 'dense']
Path = tuple[str, ...]

# The tensors of a layer in Keras's order: their path in our variables, and
# their names in Keras and torch. Networks may lack the bias of convolutions or
# the scale of batch norms.
_TENSORS: dict[Kind, tuple[tuple[Path, str, str], ...]] = {
    'conv': ((('params', 'kernel'), 'kernel', 'weight'),
             (('params', 'bias'), 'bias', 'bias')),
    'dense': ((('params', 'kernel'), 'kernel', 'weight'),
              (('params', 'bias'), 'bias', 'bias')),
    'separable': (
        (('params', 'depthwise', 'kernel'), 'depthwise_kernel', 'conv1.weight'),
        (('params', 'pointwise', 'kernel'), 'pointwise_kernel',
         'pointwise.weight')),
    'norm': ((('params', 'scale'), 'gamma', 'weight'),
             (('params', 'bias'), 'beta', 'bias'),
             (('batch_stats', 'mean'), 'moving_mean', 'running_mean'),
             (('batch_stats', 'var'), 'moving_variance', 'running_var'))}


class Tensor(NamedTuple):
  """One tensor of a network.

  Attributes:
    path: its path in the variables, `{'params', 'batch_stats'}`.
    shape: its shape in the variables.
    keras: its name within a layer of Keras.
    torch: its key in a state dict of torchvision or timm.
  """
  path: Path
  shape: tuple[int, ...]
  keras: str
  torch: str


class Layer(NamedTuple):
  """One layer of a network.

  Attributes:
    kind: the type of the layer.
    path: its path in each collection of the variables.
    keras: its name in Keras; None for an automatic name.
    torch: prefix of its tensors' keys in torch.
    tensors: its tensors in Keras's order.
  """
  kind: Kind
  path: Path
  keras: str | None
  torch: str
  tensors: tuple[Tensor, ...] = ()


@functools.cache
def layers(name: str) -> tuple[Layer, ...]:
  """Lists all layers of a backbone, one of NAMES, in the order of Keras."""
  network = backbone.build(name)
  side = network.image_size
  tree = jax.eval_shape(
      network.module.init, jax.random.key(0),
      jax.ShapeDtypeStruct((1, side, side, 3), 'float32'))
  shapes = _shapes(tree)
  without_tensors = {
      'vgg16': lambda: _vgg(vgg.VGG16), 'vgg19': lambda: _vgg(vgg.VGG19),
      'xception': _xception, 'inception_resnet_v2': _inception_resnet,
      'efficientnet_lite0': _efficientnet_lite}[name]()
  return tuple(_with_tensors(layer, shapes) for layer in without_tensors)


def torch_layers(
    tree: Mapping[str, Any], key: Callable[[Path], str]
) -> tuple[Layer, ...]:
  """Lists all layers of a network that exists only as a torch checkpoint.

  Args:
    tree: variables `{'params': ...}`, with `'batch_stats'` if there are any;
      arrays or their shapes.
    key: maps a layer's path to the prefix of its tensors' keys.
  """
  shapes = _shapes(tree)
  found = []
  for path in dict.fromkeys(path[1:-1] for path in shapes):
    kind: Kind = 'conv'
    if ('batch_stats', *path, 'mean') in shapes:
      kind = 'norm'
    elif len(shapes['params', *path, 'kernel']) == 2:
      kind = 'dense'
    found.append(
        _with_tensors(Layer(kind, path, keras=None, torch=key(path)), shapes))
  return tuple(found)


def _shapes(tree: Mapping[str, Any]) -> dict[Path, tuple[int, ...]]:
  return {path: leaf.shape for path, leaf in
          flax.traverse_util.flatten_dict(dict(tree)).items()}


def _with_tensors(layer: Layer, shapes: dict[Path, tuple[int, ...]]) -> Layer:
  """Adds those tensors to a layer that the network has."""
  tensors = []
  for (collection, *rest), keras, torch in _TENSORS[layer.kind]:
    path = (collection, *layer.path, *rest)
    if path in shapes:
      tensors.append(
          Tensor(path, shapes[path], keras, f'{layer.torch}.{torch}'))
  return layer._replace(tensors=tuple(tensors))


def _vgg(depths: Sequence[int]) -> Iterator[Layer]:
  index = 0  # torchvision numbers convolutions, ReLUs and pools together
  for block, depth in enumerate(depths, 1):
    for i in range(1, depth + 1):
      yield Layer('conv', (f'conv{block}_{i}',), f'block{block}_conv{i}',
                  f'features.{index}')
      index += 2
    index += 1
  for name, keras, index in (('fc6', 'fc1', 0), ('fc7', 'fc2', 3),
                             ('fc8', 'predictions', 6)):
    yield Layer('dense', (name,), keras, f'classifier.{index}')


def _xception() -> Iterator[Layer]:
  for i in (1, 2):
    name = f'block1_conv{i}'
    yield Layer('conv', (name,), name, f'conv{i}')
    yield Layer('norm', (f'{name}_bn',), f'{name}_bn', f'bn{i}')
  for number, (block, widths) in enumerate(xception.BLOCKS.items(), 1):
    for i in range(len(widths)):
      name = f'{block}_sepconv{i + 1}'
      # timm's block1, our block2, does not start with a ReLU.
      index = 3 * i + (number > 1)
      yield Layer('separable', (name,), name, f'block{number}.rep.{index}')
      yield Layer('norm', (f'{name}_bn',), f'{name}_bn',
                  f'block{number}.rep.{index + 1}')
    if block not in xception.MIDDLE:
      yield Layer('conv', (f'{block}_shortcut',), None, f'block{number}.skip')
      yield Layer('norm', (f'{block}_shortcut_bn',), None,
                  f'block{number}.skipbn')
  for i, name in enumerate(xception.LAST, 3):
    yield Layer('separable', (name,), name, f'conv{i}')
    yield Layer('norm', (f'{name}_bn',), f'{name}_bn', f'bn{i}')
  yield Layer('dense', ('predictions',), 'predictions', 'fc')


def _inception_resnet() -> Iterator[Layer]:
  for name in inception_resnet.STEM:
    yield from _conv_norm((name,), None, name.replace('stem', 'conv2d'))
  repeats = ('repeat', 'repeat_1', 'repeat_2')
  for (mixed, block), repeat in zip(inception_resnet.ORDER, repeats,
                                    strict=True):
    yield from _branches(mixed, inception_resnet.MIXED[mixed], mixed)
    for i in range(1, inception_resnet.REPEATS[block] + 1):
      # In timm the last block, which has no ReLU, is not part of `repeat_2`.
      torch = 'block8' if (block, i) == ('block8', 10) else f'{repeat}.{i - 1}'
      name = f'{block}_{i}'
      yield from _branches(name, inception_resnet.RESIDUAL[block], torch)
      yield Layer('conv', (f'{name}_conv',), f'{name}_conv', f'{torch}.conv2d')
  yield from _conv_norm(('conv_7b',), 'conv_7b', 'conv2d_7b')
  yield Layer('dense', ('predictions',), 'predictions', 'classif')


def _efficientnet_lite() -> Iterator[Layer]:
  """Names of the package efficientnet_lite_pytorch; Keras has no such network.
  """
  yield Layer('conv', ('stem',), None, '_conv_stem')
  yield Layer('norm', ('stem_bn',), None, '_bn0')
  for i, block in enumerate(efficientnet_lite.BLOCKS):
    for number, part in enumerate(('expand', 'depthwise', 'project')):
      if part == 'expand' and block.expansion == 1:
        continue
      path = (f'block{i + 1}',)
      yield Layer('conv', (*path, part), None, f'_blocks.{i}._{part}_conv')
      yield Layer('norm', (*path, f'{part}_bn'), None,
                  f'_blocks.{i}._bn{number}')
  yield Layer('conv', ('head',), None, '_conv_head')
  yield Layer('norm', ('head_bn',), None, '_bn1')
  yield Layer('dense', ('predictions',), None, '_fc')


def _conv_norm(path: Path, keras: str | None, torch: str) -> Iterator[Layer]:
  yield Layer('conv', (*path, 'conv'), keras, f'{torch}.conv')
  yield Layer('norm', (*path, 'bn'), keras and f'{keras}_bn', f'{torch}.bn')


def _branches(name: str, branches: Sequence[inception_resnet.Branch],
              torch: str) -> Iterator[Layer]:
  """Convolutions of parallel branches, sorted by their distance to the end.

  Keras sorts layers by their distance to the output, so branches of different
  lengths are aligned at their ends.
  """
  for distance in range(max(map(len, branches)), 0, -1):
    for b, branch in enumerate(branches):
      i = len(branch) - distance
      if i < 0:
        continue
      # Branches of several layers are nn.Sequential in timm. In the pooled
      # branch of mixed_5b the pooling is layer 0.
      pooled = name == 'mixed_5b' and b == len(branches) - 1
      key = f'branch{b}'
      if pooled or len(branch) > 1:
        key += f'.{i + pooled}'
      yield from _conv_norm((name, f'branch{b}_{i}'), None, f'{torch}.{key}')
