"""A SLURM of one node on this machine, from Debian's packages.

The programs are those on the PATH, or below the folder that COLORJAX_SLURM
names, where the packages were unpacked by `dpkg -x`:

    slurmctld slurmd slurm-client slurm-wlm-basic-plugins libhwloc15 libjson-c5

With COLORJAX_REQUIRE_SLURM set, tests fail where they would be skipped.
"""

import contextlib
import getpass
import os
import pathlib
import shutil
import socket
import subprocess
import time

ROOT = 'COLORJAX_SLURM'
REQUIRED = 'COLORJAX_REQUIRE_SLURM'

_CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={daemon}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
AuthInfo=cred_expire=5
CredType=cred/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/builtin
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmctldDebug=verbose
SlurmdDebug=verbose
ReturnToService=2
SlurmdTimeout=5
InactiveLimit=0
KillWait=30
MinJobAge=300
{plugins}
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES OverSubscribe=FORCE:8
"""


def _program(name):
  """The path of a program of SLURM, or None."""
  root = os.environ.get(ROOT)
  for found in (name, f'{name}-wlm'):
    if root:
      for folder in ('usr/sbin', 'usr/bin'):
        path = pathlib.Path(root, folder, found)
        if path.exists():
          return str(path)
    elif shutil.which(found, path=f'{os.environ["PATH"]}:/usr/sbin'):
      return shutil.which(found, path=f'{os.environ["PATH"]}:/usr/sbin')
  return None


def missing():
  """What is not there, in a word; '' where SLURM can be started."""
  names = [name for name in ('slurmctld', 'slurmd', 'srun', 'sbatch')
           if _program(name) is None]
  return f'no {names[0]}: SLURM is not installed' if names else ''


def _free_port():
  with socket.socket() as found:
    found.bind(('127.0.0.1', 0))
    return found.getsockname()[1]


class Cluster:
  """A running SLURM; `environment` makes its clients find it."""

  def __init__(self, folder):
    self.folder = pathlib.Path(folder)
    for name in ('state', 'spool', 'bin'):
      (self.folder / name).mkdir()
    root = os.environ.get(ROOT)
    libraries = pathlib.Path(root, 'usr/lib/x86_64-linux-gnu') if root else None
    plugins = f'PluginDir={libraries}/slurm-wlm' if libraries else ''
    self.host = socket.gethostname().partition('.')[0]
    (self.folder / 'slurm.conf').write_text(_CONFIG.format(
        host=self.host, controller=_free_port(), daemon=_free_port(),
        user=getpass.getuser(), folder=self.folder, plugins=plugins, cpus=2))
    self.environment = os.environ | {
        'SLURM_CONF': str(self.folder / 'slurm.conf')}
    if libraries:
      self.environment['LD_LIBRARY_PATH'] = (
          f'{libraries}:{libraries}/slurm-wlm')
      self.environment['PATH'] = (
          f'{root}/usr/bin:{root}/usr/sbin:{os.environ["PATH"]}')
    self._processes = {}

  def start(self):
    """Starts both daemons and waits for the node."""
    self._start('slurmctld', '-D', '-c')
    self.start_node()

  def start_node(self):
    """Starts the daemon of the node, and waits for it."""
    self._start('slurmd', '-D', '-N', self.host,
                '-d', _program('slurmstepd'))
    until = time.monotonic() + 30
    while time.monotonic() < until:
      if self.run('sinfo', '-h', '-o', '%T') in ('idle', 'mixed', 'allocated'):
        return
      time.sleep(0.2)
    raise RuntimeError('SLURM does not start: '
                       + (self.folder / 'slurmctld.log').read_text()[-3000:]
                       + (self.folder / 'slurmd.log').read_text()[-3000:])

  def kill_node(self):
    """Kills the daemon of the node, its jobs not."""
    process = self._processes.pop('slurmd')
    process.kill()
    process.wait(20)

  def _start(self, name, *arguments):
    with (self.folder / f'{name}.out').open('a') as output:
      self._processes[name] = subprocess.Popen(
          [_program(name), *arguments], env=self.environment, stdout=output,
          stderr=output, start_new_session=True)

  def run(self, *command):
    """What a client prints."""
    done = subprocess.run(command, env=self.environment, capture_output=True,
                          text=True, check=False, timeout=60)
    return done.stdout.strip() if done.returncode == 0 else done.stderr.strip()

  def stop(self):
    """Ends all jobs and both daemons."""
    with contextlib.suppress(Exception):
      self.run('scancel', '--user', getpass.getuser(), '--signal', 'KILL')
      self.run('scancel', '--user', getpass.getuser())
      until = time.monotonic() + 10
      while self.run('squeue', '-h') and time.monotonic() < until:
        time.sleep(0.2)
    for process in self._processes.values():
      process.terminate()
      process.wait(20)
