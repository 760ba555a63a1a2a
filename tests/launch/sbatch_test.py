"""What `sbatch` is asked for, by a program of this name that keeps its script.

Options that the SLURM of `slurm_test.py` cannot give are tested here: GPUs and
several nodes.
"""

import pytest
import sweep_cli

pytest.importorskip('submitit')


@pytest.mark.parametrize(('flags', 'nodes', 'gpus'), [
    (['--gpus_per_run=4'], '1', '4'), ([], '1', None),
    (['--gpus_per_run=16', '--nodes_per_run=2'], '2', '8')])
def test_gpus_and_nodes_of_a_run(tmp_path, flags, nodes, gpus):
  programs = tmp_path / 'bin'
  programs.mkdir()
  for name, text in (('srun', ''), ('squeue', ''), (
      'sbatch', f'cp "$1" {tmp_path}/script\necho Submitted batch job 7\n')):
    (programs / name).write_text(f'#!/bin/sh\n{text}')
    (programs / name).chmod(0o755)
  place = sweep_cli.Place(tmp_path)
  place.environment['PATH'] = f'{programs}:{place.environment["PATH"]}'
  place.run('--executor=slurm', '--nowait', '--set=seed=0', *flags)
  script = (tmp_path / 'script').read_text()
  asked = dict(line.removeprefix('#SBATCH --').partition('=')[::2]
               for line in script.splitlines() if line.startswith('#SBATCH --'))
  assert asked['nodes'] == nodes
  assert asked['ntasks-per-node'] == '1'
  assert asked.get('gpus-per-node') == gpus
