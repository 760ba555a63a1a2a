"""Checks which parts of colorjax may import which others."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent

# Modules that every part of colorjax may import.
FOUNDATIONS = {'errors', 'files'}

# For each module or package of colorjax, the others that it may import.
ALLOWED = {
    'colorjax.color': set(),
    'colorjax.errors': set(),
    'colorjax.keys': set(),
    'colorjax.files': {'errors'},
    'colorjax.film': {'color', 'keys'},
    'colorjax.parallel': {'errors'},
    'colorjax.connection': {'hosts', 'membership', 'parallel'},
    'colorjax.ode': {'keys'},
    'colorjax.hosts': set(),
    'colorjax.membership': set(),
    'colorjax.quantize': {'color'},
    'colorjax.resample': set(),
    'colorjax.propagation': set(),
    'colorjax.similarity': set(),
    'colorjax.spread': {'errors'},
    'colorjax.colorizer': {'errors'},
    'colorjax.palette': set(),
    'colorjax.fallbacks': {
        'color', 'colorizer', 'errors', 'palette', 'propagation', 'spread'},
    'colorjax.photo': {'color', 'errors'},
    'colorjax.backbones': {'errors', 'parallel'},
    'colorjax.losses': {'color', 'errors', 'similarity'},
    'colorjax.models': {
        'backbones', 'color', 'colorizer', 'errors', 'keys', 'parallel'},
    'colorjax.metrics': {
        'backbones', 'color', 'errors', 'quantize', 'similarity'},
    'colorjax.methods': {
        'backbones', 'color', 'colorizer', 'errors', 'keys', 'losses',
        'metrics', 'models', 'ode', 'propagation', 'quantize', 'resample'},
    'colorjax.data': {'errors', 'photo'},
    'colorjax.training': {
        'colorizer', 'errors', 'hosts', 'keys', 'parallel'},
    'colorjax.evaluation': {
        'color', 'colorizer', 'data', 'errors', 'fallbacks', 'film', 'hosts',
        'keys', 'metrics', 'parallel', 'photo', 'resample', 'spread'},
    'colorjax.full_size': {'color', 'photo', 'resample'},
    'colorjax.choices': set(),
    'colorjax.regions': {'choices', 'full_size', 'photo'},
    'colorjax.inference': {
        'color', 'colorizer', 'errors', 'fallbacks', 'full_size', 'photo',
        'resample', 'saved', 'zoo'},
    'colorjax.export': {'colorizer', 'errors'},
    'colorjax.composing': {
        'choices', 'colorizer', 'full_size', 'inference', 'photo', 'regions',
        'resample'},
    'colorjax.studio': {
        'choices', 'color', 'composing', 'full_size', 'inference', 'photo',
        'regions', 'saved', 'zoo'},
    # Only `runs` and `saved` import training; `saved` reads checkpoints.
    'colorjax.saved': {'colorizer', 'records', 'training'},
    'colorjax.records': {'colorizer', 'fallbacks'},
    'colorjax.runs': {
        'backbones', 'color', 'colorizer', 'data', 'errors', 'evaluation',
        'film', 'hosts', 'inference', 'keys', 'methods', 'metrics', 'parallel',
        'photo', 'quantize', 'records', 'report', 'resample', 'saved',
        'training'},
    'colorjax.zoo': {'errors'},
    'colorjax.report': {'color', 'colorizer', 'errors', 'photo'},
}


def _imports(path):
  """Dotted names that a file imports, also inside functions."""
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f'{path}: imports are absolute'
      yield node.module
      yield from (f'{node.module}.{alias.name}' for alias in node.names)


def _files(folder):
  return sorted((ROOT / folder).rglob('*.py'))


def _room(path):
  parts = path.relative_to(ROOT).with_suffix('').parts
  return '.'.join(parts[:2])


@pytest.mark.parametrize(
    'path', _files('colorjax'), ids=lambda p: str(p.relative_to(ROOT)))
def test_import_table(path):
  room = _room(path)
  if room == 'colorjax.__init__':
    # The lazy import for colorjax.colorize.
    assert all(name.startswith('colorjax.inference')
               for name in _imports(path))
    return
  assert room in ALLOWED, f'{room} has no row in the import table'
  for name in _imports(path):
    assert not name.startswith('absl.flags'), 'flags live in experiments/'
    assert name != 'absl'
    assert not name.startswith('experiments')
    parts = name.split('.')
    if parts[0] == 'colorjax' and len(parts) > 1:
      other = f'colorjax.{parts[1]}'
      assert other == room or parts[1] in ALLOWED[room] | FOUNDATIONS, (
          f'{room} may not import {other}')


def test_only_parallel_knows_devices():
  names = {'pmap', 'pmean', 'psum', 'axis_index', 'local_device_count',
           'device_count', 'local_devices'}
  for path in _files('colorjax'):
    if path.name == 'parallel.py':
      continue
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.Attribute):
        assert node.attr not in names, f'{path}:{node.lineno}: {node.attr}'


def test_launch_imports_no_jax():
  for path in _files('launch'):
    for name in _imports(path):
      room, *others = name.split('.')
      assert room not in {'jax', 'flax', 'optax'}
      assert room != 'colorjax' or set(others[:1]) <= FOUNDATIONS, (
          f'{path} may import only {FOUNDATIONS} of colorjax')


def test_foundations_of_launch_import_no_jax():
  code = ('import sys; import colorjax; '
          f'from colorjax import {", ".join(sorted(FOUNDATIONS))}; '
          "sys.exit('jax' in sys.modules)")
  subprocess.run([sys.executable, '-c', code], check=True, cwd=ROOT)


def test_core_imports_without_tensorflow():
  modules = sorted(
      '.'.join(p.relative_to(ROOT).with_suffix('').parts)
      for p in _files('colorjax') if p.name != '__init__.py')
  code = (f'import sys; import {", ".join(modules)}; '
          "sys.exit('tensorflow' in sys.modules)")
  subprocess.run([sys.executable, '-c', code], check=True, cwd=ROOT)


# The layers of colorjax, lowest first. Imports go down, or stay within a layer
# if the table above allows it.
LAYERS = [
    {'errors', 'files'},
    {'color', 'connection', 'film', 'hosts', 'keys', 'membership', 'ode',
     'parallel', 'palette', 'propagation', 'quantize', 'resample',
     'similarity', 'spread', 'zoo'},
    {'colorizer', 'fallbacks', 'photo', 'backbones', 'losses'},
    {'models', 'metrics', 'data', 'records', 'full_size', 'choices'},
    {'methods', 'training', 'inference', 'regions', 'composing', 'report',
     'evaluation', 'export', 'saved'},
    {'runs', 'studio'},
]


def test_the_table_goes_down_only():
  layer = {room: i for i, rooms in enumerate(LAYERS) for room in rooms}
  rooms = {name.removeprefix('colorjax.'): others for name, others
           in ALLOWED.items()}
  rooms = {room: others if room in FOUNDATIONS else others | FOUNDATIONS
           for room, others in rooms.items()}
  for room, others in rooms.items():
    for other in others - {room}:
      assert layer[other] <= layer[room], f'{room} imports {other}, above it'
  # There are no cycles within a layer either.
  while rooms:
    leaves = {room for room, others in rooms.items()
              if not others & rooms.keys() - {room}}
    assert leaves, f'a cycle among {sorted(rooms)}'
    rooms = {room: others for room, others in rooms.items()
             if room not in leaves}


def test_only_runs_and_saved_import_training():
  assert {name.removeprefix('colorjax.') for name, others in ALLOWED.items()
          if 'training' in others} == {'runs', 'saved'}


def test_experiments_holds_scripts_only():
  others = ('__init__.py', 'common.py', 'model_flags.py',
            'network_flags.py', 'rebalancing.py', 'replica_flags.py',
            'script.py')
  for path in (ROOT / 'experiments').glob('*.py'):
    if path.name not in others:
      assert "if __name__ == '__main__':" in path.read_text(), path.name
