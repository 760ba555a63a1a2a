"""Private folders are removed at the end, or by the next start after a kill."""

import os
import stat
import subprocess
import sys
import time

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
    file = storage.new_file(folder)
    assert file.parent == folder
    file.write_bytes(b'x')
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
