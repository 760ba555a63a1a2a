"""The studio's JSON API; README.md here describes it."""

import asyncio
import concurrent.futures
import functools
import json
import pathlib
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from colorjax import choices as choices_lib
from colorjax import photo
from colorjax.composing import Subject
from colorjax.errors import UserError
from colorjax.photo import square
from colorjax.studio import storage, work
from colorjax.studio.models import Models
from colorjax.studio.sessions import Limits, Session, Sessions, Upload

_MAX_JSON = 4_000_000  # bytes
_SMALLEST = 16  # pixels; of the longest side of a picture
_IMAGE_TYPES = ('application/octet-stream', 'image/')


class Refused(Exception):
  """A request that is not answered; with an HTTP status and a reason."""

  def __init__(self, status: int, reason: str):
    """Takes the status and the reason."""
    super().__init__(reason)
    self.status = status


class Api:
  """The routes of one server."""

  def __init__(self, models: Models, folder: pathlib.Path, limits: Limits):
    """Makes the API.

    Args:
      models: the models.
      folder: a private folder for uploaded files.
      limits: what the server holds at most.
    """
    self._models = models
    self._folder = folder
    self._limits = limits
    self.sessions = Sessions(limits)
    # Decoding, segments and downloads never delay the picture on the screen.
    self._quick = concurrent.futures.ThreadPoolExecutor(1, 'studio-quick')
    self._slow = concurrent.futures.ThreadPoolExecutor(1, 'studio-slow')
    self.problem: str | None = None

  def close(self) -> None:
    """Ends the worker threads."""
    for pool in (self._quick, self._slow):
      pool.shutdown(cancel_futures=True)

  async def load(self) -> None:
    """Loads the models and compiles them."""
    def load():
      try:
        self._models.load()
        for name in self._models.names:
          work.warm_up(self._models.of(choices_lib.Choices(model=name)))
      except UserError as error:
        self.problem = str(error)

    def load_more():
      for name in self._models.names:
        work.warm_up_more(self._models.of(choices_lib.Choices(model=name)))

    await self._run(self._quick, load)
    if self.problem is None:
      # Beside the first pictures, not before them.
      await self._run(self._slow, load_more)

  @property
  def routes(self) -> list[Route]:
    """The routes for Starlette."""
    return [
        Route('/api/status', self._status),
        Route('/api/session', self._start, methods=['POST']),
        self._route('/api/session', self._end, ['DELETE'], is_ordered=False),
        self._route('/api/photos', self._photos, ['GET']),
        self._route('/api/photos', self._upload, ['POST'], is_ordered=False),
        self._route('/api/photos/{photo}', self._drop, ['DELETE']),
        self._route('/api/photos/{photo}/original', self._original, ['GET']),
        self._route('/api/photos/{photo}/segments', self._segments, ['GET'],
                    is_ordered=False),
        self._route('/api/photos/{photo}/colorings', self._colorings),
        self._route('/api/photos/{photo}/picture', self._picture),
        self._route('/api/photos/{photo}/uncertainty', self._uncertainty),
        self._route('/api/photos/{photo}/colors', self._colors),
        self._route('/api/photos/{photo}/file', self._file, is_ordered=False),
        self._route('/api/references', self._reference, ['POST'],
                    is_ordered=False),
    ]

  def _route(self, path: str, answer: Callable[..., Awaitable[Response]],
             methods: tuple[str, ...] | list[str] = ('POST',), *,
             is_ordered: bool = True) -> Route:
    """A route of a session; ordered ones are answered one after the other."""
    async def endpoint(request: Request) -> Response:
      try:
        session = self._session(request)
        with self.sessions.using(session):
          if not is_ordered:
            return await answer(request, session)
          async with session.lock:
            return await answer(request, session)
      except Refused as error:
        return _error(error.status, str(error))
      except UserError as error:
        return _error(422, str(error))
      except ClientDisconnect:
        return _error(400, 'the request ended early')

    return Route(path, endpoint, methods=list(methods))

  def _session(self, request: Request) -> Session:
    session = self.sessions.find(request.headers.get('x-session', ''))
    if session is None:
      raise Refused(401, 'this session does not exist or has ended')
    return session

  async def _status(self, request: Request) -> Response:
    del request
    return JSONResponse({
        'is_ready': self._models.is_loaded, 'problem': self.problem,
        'models': self._models.describe(),
        'limits': {'file_bytes': self._limits.file_bytes,
                   'pixels': self._limits.pixels,
                   'photos': self._limits.photos,
                   'preview': self._limits.preview}})

  async def _start(self, request: Request) -> Response:
    del request
    try:
      session = self.sessions.start()
    except RuntimeError as error:
      return _error(503, str(error))
    return JSONResponse({'session': session.key})

  async def _end(self, request: Request, session: Session) -> Response:
    del request
    self.sessions.end(session)
    return Response(status_code=204)

  async def _photos(self, request: Request, session: Session) -> Response:
    del request
    return JSONResponse({'photos': [
        {'id': name, **upload.facts}
        for name, upload in session.photos.items()]})

  async def _upload(self, request: Request, session: Session) -> Response:
    if len(session.photos) >= self._limits.photos:
      raise Refused(429, f'at most {self._limits.photos} photographs at a '
                    'time; close one')
    file = await self._receive(request, session)
    name = file.name
    try:
      def decode():
        picture = work.read(file, max_pixels=self._limits.pixels,
                            name=_called(request))
        self._models.load()
        subject = Subject(picture, longest=self._limits.preview,
                          sizes=self._models.sizes)
        return subject, work.facts_of(picture, work.digest(file))

      subject, facts = await self._run(self._slow, decode)
      if len(session.photos) >= self._limits.photos:
        raise Refused(429, 'too many photographs')
      session.photos[name] = Upload(file, file.stat().st_size, subject, facts)
    except BaseException:
      file.unlink(missing_ok=True)
      raise
    if self.sessions.find(session.key) is None:
      session.drop(name)
      raise Refused(401, 'this session has ended')
    return JSONResponse({'id': name, **facts}, status_code=201)

  async def _drop(self, request: Request, session: Session) -> Response:
    session.drop(self._photo(request, session)[0])
    return Response(status_code=204)

  async def _reference(self, request: Request, session: Session) -> Response:
    file = await self._receive(request, session)
    try:
      def decode():
        pixels = photo.to_rgb8(work.read(
            file, max_pixels=self._limits.pixels, name=_called(request)))
        self._models.load()
        return work.digest(file), {
            size: square.squash(pixels, size) for size in self._models.sizes}

      digest, pixels = await self._run(self._slow, decode)
    finally:
      file.unlink(missing_ok=True)
    while len(session.references) >= self._limits.photos:
      session.references.pop(next(iter(session.references)))
    session.references[digest] = pixels
    return JSONResponse({'reference': digest}, status_code=201)

  async def _original(self, request: Request, session: Session) -> Response:
    _, upload = self._photo(request, session)
    longest = self._longest(request.query_params.get('longest'))
    return _image(await self._run(
        self._quick, work.original_of, upload.subject, longest))

  async def _segments(self, request: Request, session: Session) -> Response:
    _, upload = self._photo(request, session)
    size = request.query_params.get('size', 'medium')
    if size not in choices_lib.SIZES:
      raise Refused(422, f'size is one of {", ".join(choices_lib.SIZES)}')
    return _image(await self._run(
        self._slow, work.segments_of, upload.subject, size), 'image/png')

  async def _colorings(self, request: Request, session: Session) -> Response:
    body, asked = await self._asked(request, session, ('seed',))
    seed = body.get('seed')
    if seed is not None and (type(seed) is not int or not 0 <= seed < 2**31):
      raise Refused(422, 'seed is a whole number from 0 to 2147483647')
    return JSONResponse({'colorings': await self._run(
        self._quick, work.colorings_of, *asked, seed)})

  async def _picture(self, request: Request, session: Session) -> Response:
    body, asked = await self._asked(request, session, ('longest',))
    longest = self._longest(body.get('longest'))
    return _image(await self._run(
        self._quick, work.picture_of, *asked, longest))

  async def _uncertainty(self, request: Request, session: Session) -> Response:
    _, asked = await self._asked(request, session)
    if asked[1].num_colorings == 1:
      raise Refused(422, 'this model has one coloring, and so no uncertainty')
    return _image(await self._run(
        self._quick, work.uncertainty_of, *asked), 'image/png')

  async def _colors(self, request: Request, session: Session) -> Response:
    body, asked = await self._asked(request, session, ('x', 'y'))
    height, width = asked[0].shape
    point = []
    for name, side in (('x', width), ('y', height)):
      value = body.get(name)
      if not isinstance(value, int | float) or not 0 <= value < side:
        raise Refused(422, f'{name} is a number from 0, below {side}')
      point.append(value)
    return JSONResponse(await self._run(
        self._quick, work.swatches_of, *asked, *point))

  async def _file(self, request: Request, session: Session) -> Response:
    _, upload = self._photo(request, session)
    body, asked = await self._asked(request, session, ('format', 'bits'))
    ending, bits = body.get('format', 'same'), body.get('bits')
    if ending == 'same':
      ending = upload.facts['ending']
    elif ending in ('png', 'jpg', 'tiff', 'webp'):
      ending = f'.{ending}'
    else:
      raise Refused(422, 'format is png, jpg, tiff, webp or same')
    if bits not in (None, 8, 16):
      raise Refused(422, 'bits is 8, 16 or null')

    def make():
      picture = work.read(upload.path, max_pixels=self._limits.pixels,
                          name='the photograph')
      return work.file_of(picture, *asked, ending=ending, bits=bits)

    return Response(
        await self._run(self._slow, make),
        media_type='application/octet-stream',
        headers={'Content-Disposition':
                 f'attachment; filename="coloring{ending}"'})

  def _photo(self, request: Request, session: Session) -> tuple[str, Upload]:
    name = request.path_params['photo']
    if name not in session.photos:
      raise Refused(404, 'this session has no such photograph')
    return name, session.photos[name]

  async def _asked(self, request: Request, session: Session,
                   others: tuple[str, ...] = ()) -> tuple[dict, tuple]:
    """Reads the JSON of a request.

    Returns:
      The whole object; photograph, model, choices and reference.
    """
    _, upload = self._photo(request, session)
    body = await _json(request)
    for name in body:
      if name not in ('choices', *others):
        raise Refused(422, f'there is no entry {name[:40]!r}')
    height, width = upload.subject.shape
    choices = choices_lib.parse(body.get('choices', {}), width, height)
    if not self._models.is_loaded:
      await self._run(self._quick, self._models.load)
    method = self._models.of(choices)
    for pick in choices.picks:
      method.check(pick)
    reference = None
    if choices.reference is not None:
      if choices.reference not in session.references:
        raise Refused(409, 'this session does not have that reference')
      reference = session.references[choices.reference][method.image_size]
    return body, (upload.subject, method, choices, reference)

  def _longest(self, value: Any) -> int:
    if value is None:
      return self._limits.preview
    try:
      longest = int(value)
    except (TypeError, ValueError) as error:
      raise Refused(422, 'longest is a number of pixels') from error
    return min(max(longest, _SMALLEST), self._limits.preview)

  async def _receive(self, request: Request, session: Session) -> pathlib.Path:
    """Writes the body of a request to a new file, up to the limit."""
    kind = request.headers.get('content-type', '')
    if not kind.startswith(_IMAGE_TYPES):
      raise Refused(415, 'send the bytes of one picture, with the content type '
                    'application/octet-stream or that of the picture')
    limit = self._limits.file_bytes
    too_large = Refused(413, f'the file is larger than {limit // 10**6} MB')
    length = int(request.headers.get('content-length') or limit)
    if length > limit:
      raise too_large
    with self.sessions.arriving(session, length) as has_room:
      if not has_room:
        raise Refused(503, 'there is no room for another photograph; try later')
      try:
        return await storage.receive(
            request.stream(), self._folder, limit=limit,
            stall_seconds=self._limits.stall_seconds,
            seconds=self._limits.upload_seconds)
      except TimeoutError as error:
        raise Refused(408, 'the upload stopped') from error
      except storage.TooLarge as error:
        raise too_large from error

  async def _run(self, pool: concurrent.futures.Executor,
                 function: Callable[..., Any], *args: Any) -> Any:
    try:
      return await asyncio.get_running_loop().run_in_executor(
          pool, functools.partial(function, *args))
    except UserError:
      raise
    except Exception as error:
      if photo.is_out_of_memory(error):
        raise Refused(503, 'there is not enough memory for this') from error
      raise


async def _json(request: Request) -> dict:
  """The body of a request as a JSON object."""
  if not request.headers.get('content-type', '').startswith('application/json'):
    raise Refused(415, 'send JSON with the content type application/json')
  body = b''
  async for chunk in request.stream():
    body += chunk
    if len(body) > _MAX_JSON:
      raise Refused(413, 'the choices are too long')
  try:
    value = json.loads(body, parse_constant=_no_constant)
  except (ValueError, RecursionError) as error:
    raise Refused(400, 'the body is not valid JSON') from error
  if not isinstance(value, dict):
    raise Refused(422, 'the body is not a JSON object')
  return value


def _no_constant(name: str) -> None:
  raise ValueError(f'{name} is not a number')


def _called(request: Request) -> str:
  """What errors call an uploaded file; it ends as the file did, if known."""
  ending = request.query_params.get('ending', '').lower()
  return f'the photograph{ending if ending in photo.NOT_READ else ""}'


def _error(status: int, reason: str) -> Response:
  return JSONResponse({'error': reason}, status_code=status)


def _image(data: bytes, kind: str = 'image/jpeg') -> Response:
  return Response(data, media_type=kind)
