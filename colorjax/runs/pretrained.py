"""Weights for the pretrained networks inside a method."""

import pathlib
from collections.abc import Iterable, Mapping

from colorjax.colorizer import Colorizer, Variables
from colorjax.errors import UserError

RANDOM = 'random'
"""In place of files: networks begin with the weights that `init` drew."""


def parse(text: str | None, names: Iterable[str]) -> dict[str, pathlib.Path]:
  """Which network takes its weights from which file.

  Args:
    text: FILE where there is one network; NAME=FILE,NAME=FILE,...; 'random' or
      None for no file.
    names: of the networks inside the method.

  Returns:
    The files by network, not looked for yet. UserError, in one line, for a
    name that is no network of the method, and for a file alone where there are
    several networks.
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
        f'{", ".join(names)}: say NAME=FILE for each, separated by commas')
  files: dict[str, pathlib.Path] = {}
  for name, equals, file in parts:
    if name not in names or not equals or not file or name in files:
      raise UserError(
          f'backbone_weights={text}: {"".join((name, equals, file))!r} is no '
          f'NAME=FILE with one of {", ".join(names)} once each')
    files[name] = pathlib.Path(file)
  return files


def find(colorizer: Colorizer, text: str | None) -> dict[str, pathlib.Path]:
  """The files that a method's networks take their weights from.

  Args:
    colorizer: the method.
    text: see `parse`. A network without a file is downloaded, unless the text
      is 'random'.

  Returns:
    The files by network, all there. UserError for a file that is missing or
    cannot be had.
  """
  files = parse(text, colorizer.backbones)
  for name, path in files.items():
    if not path.is_file():  # Said now: networks take their time to be made.
      raise UserError(f'backbone_weights={path}: no such file for {name}')
  if text == RANDOM:
    for name in colorizer.backbones:
      print(f'{name}: random weights')
    return {}
  return {name: files[name] if name in files else pretrained.download()
          for name, pretrained in colorizer.backbones.items()}


def load(colorizer: Colorizer, variables: Variables,
         files: Mapping[str, pathlib.Path]) -> Variables:
  """Puts the weights of files into the places of a method's networks.

  Args:
    colorizer: the method.
    variables: what its `init` gives.
    files: what `find` gave.

  Returns:
    The variables. UserError for a file of another network.
  """
  for name, path in files.items():
    variables = colorizer.backbones[name].load(variables, path)
  return variables


def _looks_named(parts: list[tuple[str, str, str]]) -> bool:
  """Whether every part is WORD=FILE, so that WORD was meant as a network."""
  return all(equals and name.isidentifier() for name, equals, _ in parts)
