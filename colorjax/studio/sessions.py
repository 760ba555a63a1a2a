"""Sessions: each person's photographs, kept apart and bounded.

A session is known by a random name of 256 bits that only its page has. It ends
when it has not been used for a while, or when memory or disk is needed: the one
that was used longest ago first, and never one with a request under way.
"""

import asyncio
import contextlib
import dataclasses
import pathlib
import secrets
import time
from collections.abc import Iterator

import numpy as np

from colorjax.composing import Subject


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
  """What one server holds at most.

  Attributes:
    file_bytes: size of an uploaded file.
    pixels: pixels of a photograph, checked before it is decoded.
    photos: photographs of one session, and references too.
    sessions: sessions.
    idle_seconds: a session that was not used for so long ends.
    memory_bytes: memory of all sessions.
    disk_bytes: files of all sessions.
    stall_seconds: an upload that sends nothing for so long is refused.
    upload_seconds: an upload that takes longer is refused.
    preview: longest side of the picture on the screen, in pixels.
  """
  file_bytes: int = 200_000_000
  pixels: int = 120_000_000
  photos: int = 12
  sessions: int = 32
  idle_seconds: float = 4 * 3600.0
  memory_bytes: int = 1_500_000_000
  disk_bytes: int = 4_000_000_000
  stall_seconds: float = 30.0
  upload_seconds: float = 900.0
  preview: int = 1024


@dataclasses.dataclass
class Upload:
  """A photograph of a session.

  Attributes:
    path: its file in the private folder.
    num_bytes: size of the file.
    subject: what is needed to color it on the screen.
    facts: what the page is told of it.
  """
  path: pathlib.Path
  num_bytes: int
  subject: Subject
  facts: dict


class Session:
  """One person's photographs.

  Attributes:
    key: the random name.
    photos: photographs by their random names.
    references: pixels of reference photographs by digest, and by the side of
      the network's input that they were reduced to.
    lock: held by the request that is answered; they are answered in order.
  """

  def __init__(self) -> None:
    """Starts an empty session."""
    self.key = secrets.token_urlsafe(32)
    self.photos: dict[str, Upload] = {}
    self.references: dict[str, dict[int, np.ndarray]] = {}
    self.lock = asyncio.Lock()
    self.used = time.monotonic()
    self.num_requests = 0

  @property
  def memory(self) -> int:
    """Bytes in memory."""
    return sum(one.subject.num_bytes for one in self.photos.values()) + sum(
        x.nbytes for one in self.references.values() for x in one.values())

  @property
  def disk(self) -> int:
    """Bytes on disk."""
    return sum(one.num_bytes for one in self.photos.values())

  def drop(self, name: str) -> None:
    """Removes a photograph."""
    upload = self.photos.pop(name)
    with contextlib.suppress(OSError):
      upload.path.unlink()


class Sessions:
  """All sessions of a server. It is used by the event loop's thread only."""

  def __init__(self, limits: Limits):
    """Starts without sessions."""
    self._limits = limits
    self._sessions: dict[str, Session] = {}
    self._arriving = 0  # bytes of files that are being received

  def start(self) -> Session:
    """Starts a session; the one used longest ago ends if there are too many.

    Returns:
      The session.

    Raises:
      RuntimeError: all sessions are busy.
    """
    self.end_idle()
    while len(self._sessions) >= self._limits.sessions:
      if not self._end_oldest():
        raise RuntimeError('all sessions are busy')
    session = Session()
    self._sessions[session.key] = session
    return session

  def find(self, key: str) -> Session | None:
    """Returns a session by its name; None if there is none, or it has ended."""
    self.end_idle()
    return self._sessions.get(key)

  @contextlib.contextmanager
  def using(self, session: Session) -> Iterator[None]:
    """Keeps a session from ending while a request of it is answered."""
    session.num_requests += 1
    session.used = time.monotonic()
    try:
      yield
    finally:
      session.num_requests -= 1
      session.used = time.monotonic()
      self.make_room(keep=session)

  @contextlib.contextmanager
  def arriving(self, session: Session, num_bytes: int) -> Iterator[bool]:
    """Keeps room on the disk for a file while it is received.

    Args:
      session: the session that gets it.
      num_bytes: its largest possible size.

    Yields:
      Whether there is room.
    """
    if not self.make_room(num_bytes, keep=session):
      yield False
      return
    self._arriving += num_bytes
    try:
      yield True
    finally:
      self._arriving -= num_bytes

  def end(self, session: Session) -> None:
    """Ends a session and removes its files."""
    self._sessions.pop(session.key, None)
    for name in list(session.photos):
      session.drop(name)
    session.references.clear()

  def end_idle(self) -> None:
    """Ends sessions that were not used for a while."""
    past = time.monotonic() - self._limits.idle_seconds
    for session in list(self._sessions.values()):
      if session.used < past and not session.num_requests:
        self.end(session)

  def make_room(self, num_bytes: int = 0, *, keep: Session) -> bool:
    """Frees memory and disk until they are below the limits.

    Args:
      num_bytes: bytes of a file that is to be written.
      keep: a session that does not end.

    Returns:
      Whether there is enough room now.
    """
    for session in self._idle():
      if self._memory() <= self._limits.memory_bytes:
        break
      for upload in session.photos.values():
        upload.subject.forget()
    while (self._memory() > self._limits.memory_bytes
           or self._disk() + num_bytes > self._limits.disk_bytes):
      if not self._end_oldest(keep):
        break
    return (self._memory() <= self._limits.memory_bytes
            and self._disk() + num_bytes <= self._limits.disk_bytes)

  def _idle(self) -> list[Session]:
    """Sessions without a request, the one used longest ago first."""
    return sorted((one for one in self._sessions.values()
                   if not one.num_requests), key=lambda one: one.used)

  def _end_oldest(self, keep: Session | None = None) -> bool:
    """Ends the session used longest ago; returns whether there was one."""
    for session in self._idle():
      if session is not keep:
        self.end(session)
        return True
    return False

  def _memory(self) -> int:
    return sum(one.memory for one in self._sessions.values())

  def _disk(self) -> int:
    return self._arriving + sum(one.disk for one in self._sessions.values())
