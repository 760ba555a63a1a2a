"""The commands of a sweep, for people to read; nothing is started."""

import shlex
from collections.abc import Sequence

from launch import flag_check
from launch.manifest import Run, Sweep


def commands(sweep: Sweep, runs: Sequence[Run], given: Sequence[str]
             ) -> list[str]:
  """One command a run, as a person would type it.

  Args:
    sweep: the sweep.
    runs: its runs.
    given: the flags that all share as they were given, --flagfile among them.
  """
  return [_command(sweep, run, given) for run in runs]


def _command(sweep: Sweep, run: Run, given: Sequence[str]) -> str:
  repeated = set(sweep.repeated) & run.values.keys()
  # A flag that adds up cannot be taken back after a flagfile.
  words = (flag_check.run_flags(sweep.flags, sweep.repeated, run.values)
           if repeated & _names(sweep.flags) else
           flag_check.run_flags(given, sweep.repeated, run.values))
  return shlex.join(['python', '-m', sweep.experiment, *words,
                     f'--workdir={sweep.workdir(run)}'])


def _names(words: Sequence[str]) -> set[str]:
  return {word.lstrip('-').partition('=')[0] for word in words}
