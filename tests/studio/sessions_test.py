"""Sessions end when they are idle or when room is needed, oldest first."""

import types

import numpy as np
import pytest

from colorjax.studio import sessions
from colorjax.studio.sessions import Limits, Sessions, Upload


class Subject:
  """Stands for a photograph: some bytes that can be forgotten, some not."""

  def __init__(self, fixed, cached):
    self.num_bytes = fixed + cached
    self._fixed = fixed

  def forget(self):
    self.num_bytes = self._fixed


@pytest.fixture
def clock(monkeypatch):
  now = types.SimpleNamespace(time=0.0)
  monkeypatch.setattr(sessions.time, 'monotonic', lambda: now.time)
  return now


def add(session, folder, *, disk=10, fixed=10, cached=0):
  path = folder / f'{len(list(folder.iterdir()))}'
  path.touch()
  session.photos[path.name] = Upload(path, disk, Subject(fixed, cached), {})
  return path


def use(them, session, clock):
  clock.time += 1
  with them.using(session):
    pass


def test_names_cannot_be_guessed():
  them = Sessions(Limits(sessions=100))
  names = {them.start().key for _ in range(100)}
  assert len(names) == 100
  assert min(map(len, names)) >= 43  # 256 bits
  assert them.find('') is None


def test_idle_sessions_end(clock, tmp_path):
  them = Sessions(Limits(idle_seconds=100))
  first, second, busy = them.start(), them.start(), them.start()
  file = add(first, tmp_path)
  clock.time = 60
  use(them, second, clock)
  busy.num_requests = 1
  clock.time = 130
  assert them.find(first.key) is None
  assert not file.exists()
  assert them.find(second.key) is second
  assert them.find(busy.key) is busy


def test_the_oldest_ends_for_a_new_one(clock):
  them = Sessions(Limits(sessions=3))
  a, b, c = (them.start() for _ in range(3))
  for session in (b, c, a):
    use(them, session, clock)
  them.start()
  assert them.find(b.key) is None
  c.num_requests = 1
  them.start()
  assert them.find(a.key) is None
  assert them.find(c.key) is c


def test_no_new_session_if_all_are_busy():
  them = Sessions(Limits(sessions=1))
  them.start().num_requests = 1
  with pytest.raises(RuntimeError, match='busy'):
    them.start()


def test_memory_is_freed_before_sessions_end(clock, tmp_path):
  them = Sessions(Limits(memory_bytes=100))
  a, b = them.start(), them.start()
  add(a, tmp_path, fixed=10, cached=50)
  add(b, tmp_path, fixed=10, cached=50)
  use(them, a, clock)
  assert b.memory == 10  # used longer ago
  assert a.memory == 60
  b.references['r'] = {8: np.zeros(85, np.uint8)}
  use(them, b, clock)
  assert them.find(a.key) is None
  assert them.find(b.key) is b


def test_room_on_the_disk(clock, tmp_path):
  them = Sessions(Limits(disk_bytes=100))
  a, b = them.start(), them.start()
  file = add(a, tmp_path, disk=60)
  add(b, tmp_path, disk=30)
  use(them, b, clock)
  assert them.make_room(10, keep=b)
  assert file.exists()
  assert them.make_room(40, keep=b)
  assert not file.exists()
  assert not them.make_room(80, keep=b)  # of b itself
  assert them.find(b.key) is b
  with them.arriving(b, 50) as first, them.arriving(b, 30) as second:
    assert (first, second) == (True, False)  # 80 are used or promised
  assert them.make_room(70, keep=b)
