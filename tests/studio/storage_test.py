"""Private folders are removed at the end, or by the next start after a kill."""

import asyncio
import os
import stat
import subprocess
import sys
import time

import pytest

from colorjax.studio import storage

HOLD = '''
import sys, time
from colorjax.studio import storage
with storage.private_folder(sys.argv[1]) as folder:
  (folder / 'photo').write_text('x')
  print(folder, flush=True)
  time.sleep(60)
'''


def test_private_and_removed_at_the_end(tmp_path):
  with storage.private_folder(tmp_path) as folder:
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (folder / 'file').write_bytes(b'x')
  assert list(tmp_path.iterdir()) == []


def test_the_folder_of_a_killed_process_goes_with_the_next_start(tmp_path):
  with subprocess.Popen([sys.executable, '-c', HOLD, str(tmp_path)],
                        stdout=subprocess.PIPE, text=True) as process:
    assert process.stdout is not None
    alive = process.stdout.readline().strip()
    with storage.private_folder(tmp_path):
      assert os.path.exists(alive)  # its process is alive
    process.kill()
    process.wait()
  assert os.path.exists(alive)
  with storage.private_folder(tmp_path) as folder:
    assert not os.path.exists(alive)
  assert not folder.exists()


def test_other_folders_stay(tmp_path):
  (tmp_path / 'mine').mkdir()
  new = tmp_path / f'{storage.PREFIX}new'  # its process is about to lock it
  new.mkdir()
  old = tmp_path / f'{storage.PREFIX}old'
  old.mkdir()
  os.utime(old, 2 * (time.time() - 3600,))
  target = tmp_path / 'target'
  target.mkdir()
  (target / 'lock').touch()
  (tmp_path / f'{storage.PREFIX}link').symlink_to(target)
  storage.remove_abandoned(tmp_path)
  assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
      ['mine', new.name, 'target', f'{storage.PREFIX}link'])
  assert (target / 'lock').exists()


def test_files_are_received_whole_or_not_at_all(tmp_path):
  async def chunks(*parts):
    for part in parts:
      if isinstance(part, float):
        await asyncio.sleep(part)
      else:
        yield part

  def receive(*parts, **options):
    return asyncio.run(storage.receive(chunks(*parts), tmp_path, **{
        'limit': 4, 'stall_seconds': 0.2, 'seconds': 5.0} | options))

  file = receive(b'ab', b'cd')
  assert file.parent == tmp_path
  assert file.read_bytes() == b'abcd'
  file.unlink()
  with pytest.raises(storage.TooLarge):
    receive(b'ab', b'cde')
  with pytest.raises(TimeoutError):
    receive(b'ab', 1.0, b'c')
  with pytest.raises(TimeoutError):
    receive(b'a', 0.1, b'b', 0.1, b'c', seconds=0.15)
  assert list(tmp_path.iterdir()) == []
