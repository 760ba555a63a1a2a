"""Loads weights into the pretrained networks inside a method."""

import pathlib
from collections.abc import Iterable, Mapping

from colorjax.colorizer import Colorizer, Variables
from colorjax.errors import UserError

RANDOM = 'random'
"""Given in place of files: networks keep the random weights of `init`."""


def parse(text: str | None, names: Iterable[str]) -> dict[str, pathlib.Path]:
  """Parses which network takes its weights from which file.

  Args:
    text: FILE if there is one network; NAME=FILE,NAME=FILE,...; 'random' or
      None for no file.
    names: names of the networks inside the method.

  Returns:
    The files by network; they may not exist.

  Raises:
    UserError: a name is not a network of the method, or a file is given
      without a name although there are several networks.
  """
  names = list(names)
  if text in (None, '', RANDOM) or not names:
    return {}
  parts = [part.partition('=') for part in text.split(',')]
  if not any(name in names for name, _, _ in parts):
    if len(names) == 1 and not _looks_named(parts):
      return {names[0]: pathlib.Path(text)}
    raise UserError(
        f'backbone_weights={text}: the pretrained networks are '
        f'{", ".join(names)}: give NAME=FILE for each, separated by commas')
  files: dict[str, pathlib.Path] = {}
  for name, equals, file in parts:
    if name not in names or not equals or not file or name in files:
      raise UserError(
          f'backbone_weights={text}: {"".join((name, equals, file))!r} is not '
          f'NAME=FILE; NAME is one of {", ".join(names)}, each given once')
    files[name] = pathlib.Path(file)
  return files


def find(colorizer: Colorizer, text: str | None) -> dict[str, pathlib.Path]:
  """Finds the files of weights for a method's networks.

  Args:
    colorizer: the method.
    text: as in `parse`. The weights of a network without a file are
      downloaded, unless the text is 'random'.

  Returns:
    The files by network, all of which exist.

  Raises:
    UserError: a file is missing or cannot be downloaded.
  """
  files = parse(text, colorizer.backbones)
  for name, path in files.items():
    if not path.is_file():  # Checked now, because building networks is slow.
      raise UserError(f'backbone_weights={path}: no such file for {name}')
  if text == RANDOM:
    for name in colorizer.backbones:
      print(f'{name}: random weights')
    return {}
  return {name: files[name] if name in files else pretrained.download()
          for name, pretrained in colorizer.backbones.items()}


def load(colorizer: Colorizer, variables: Variables,
         files: Mapping[str, pathlib.Path]) -> Variables:
  """Replaces the weights of a method's pretrained networks by those of files.

  Args:
    colorizer: the method.
    variables: what its `init` returned.
    files: what `find` returned.

  Returns:
    The new variables.

  Raises:
    UserError: a file cannot be read or holds another network.
  """
  for name, path in files.items():
    variables = colorizer.backbones[name].load(variables, path)
  return variables


def _looks_named(parts: list[tuple[str, str, str]]) -> bool:
  """Whether every part is WORD=FILE, where WORD was meant to be a network."""
  return all(equals and name.isidentifier() for name, equals, _ in parts)
