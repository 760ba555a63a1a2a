"""The studio as a web server: the page, its API, and how both are protected."""

import asyncio
import contextlib
import importlib.resources
import pathlib
import secrets
import signal
import socket
import sys
from collections.abc import Callable, Collection
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from colorjax.errors import UserError
from colorjax.studio import guard, storage
from colorjax.studio.models import Models
from colorjax.studio.routes import Api
from colorjax.studio.sessions import Limits

_TYPES = {'.html': 'text/html', '.css': 'text/css', '.js': 'text/javascript',
          '.svg': 'image/svg+xml'}

_MAX_CONNECTIONS = 200
_SWEEP_SECONDS = 60.0


def application(models: Models, folder: pathlib.Path, *,
                limits: Limits | None = None,
                hosts: Collection[str] = guard.LOOPBACK,
                token: str | None = None) -> Any:
  """Makes the ASGI application.

  Args:
    models: the models; they are loaded in the background.
    folder: a private folder for uploaded files, see `storage`.
    limits: what it holds at most.
    hosts: as in `guard.Guard`.
    token: as in `guard.Guard`.

  Returns:
    The application.
  """
  api = Api(models, folder, limits or Limits())

  @contextlib.asynccontextmanager
  async def lifespan(app):
    del app
    tasks = [asyncio.create_task(api.load()), asyncio.create_task(sweep())]
    try:
      yield
    finally:
      for task in tasks:
        task.cancel()
      await asyncio.gather(*tasks, return_exceptions=True)
      api.close()

  async def sweep():
    while True:
      await asyncio.sleep(_SWEEP_SECONDS)
      api.sessions.end_idle()

  return guard.Guard(
      Starlette(
          routes=[*_page_routes(), *api.routes], lifespan=lifespan,
          exception_handlers={404: _plain(404, 'there is nothing here'),
                              405: _plain(405, 'not with this method'),
                              500: _plain(500, 'the studio has made a mistake; '
                                          'its terminal shows more')}),
      hosts=hosts, token=token)


def _page_routes() -> list[Route]:
  """The files of the page, read once; nothing else can be asked for."""
  page = importlib.resources.files('colorjax.studio') / 'page'
  routes = []
  for file in page.iterdir():
    kind = _TYPES.get(pathlib.PurePath(file.name).suffix)
    if kind is None:
      continue
    path = '/' if file.name == 'index.html' else f'/{file.name}'
    routes.append(Route(path, _constant(file.read_bytes(), kind)))
  return [*routes, Route('/to-page', _to_page)]


def _constant(content: bytes, kind: str) -> Callable[[Request], Any]:
  async def answer(request: Request) -> Response:
    del request
    return Response(content, media_type=kind)

  return answer


async def _to_page(request: Request) -> Response:
  """Adds the slash after the token that the page's relative addresses need."""
  return RedirectResponse(f'{request.scope["root_path"]}/')


def _plain(status: int, reason: str) -> Callable[..., Any]:
  async def answer(request: Request, error: Exception) -> Response:
    del request, error
    return JSONResponse({'error': reason}, status_code=status)

  return answer


def serve(models: Models, *, host: str = '127.0.0.1', port: int = 8000,
          names: Collection[str] = (), limits: Limits | None = None,
          say: Callable[[str], None] = print,
          opened: Callable[[str], None] = lambda address: None) -> None:
  """Serves the studio until it is interrupted.

  Args:
    models: the models.
    host: the address that it listens at. If other machines can reach it, the
      address of the page contains a token.
    port: its port; 0 for any that is free.
    names: further names of this machine that requests may use.
    limits: what it holds at most.
    say: called with a line for the terminal.
    opened: called with the address of the page when it can be opened.

  Raises:
    UserError: the address cannot be used.
  """
  is_private = guard.is_loopback(host)
  token = None if is_private else secrets.token_urlsafe(24)
  shown, hosts = _names(host, names)
  with _listening(host, port) as sockets, storage.private_folder() as folder:
    port = sockets.getsockname()[1]
    address = f'http://{shown}:{port}/' + (f'{token}/' if token else '')
    app = application(models, folder, limits=limits, hosts=hosts, token=token)
    server = uvicorn.Server(uvicorn.Config(
        app, log_level='error', access_log=False, server_header=False,
        date_header=False, proxy_headers=False, ws='none', lifespan='on',
        limit_concurrency=_MAX_CONNECTIONS, timeout_keep_alive=30,
        timeout_graceful_shutdown=2))
    say(f'The studio is open at {address}')
    if not is_private:
      say('Everyone who has this address can use it. The connection is not '
          'encrypted.')
    opened(address)
    # The server raises the signal that ended it again. The folder is to be
    # removed then, too.
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
      with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[sockets])
    finally:
      signal.signal(signal.SIGTERM, before)


def _names(host: str, names: Collection[str]) -> tuple[str, set[str]]:
  """The name in the address of the page, and those that Host may have."""
  if guard.is_loopback(host):
    bare = host.strip('[]').lower()
    shown = f'[{bare}]' if ':' in bare else bare
    return shown, {*guard.LOOPBACK, bare, *map(str.lower, names)}
  machine = socket.gethostname().lower()
  bare = host.strip('[]').lower()
  shown = f'[{bare}]' if ':' in bare else bare
  return (machine if bare in ('0.0.0.0', '::', '') else shown,
          {*guard.LOOPBACK, machine, bare, *map(str.lower, names)})


def _listening(host: str, port: int) -> socket.socket:
  """A socket that listens.

  Raises:
    UserError: the address cannot be used.
  """
  try:
    family, kind, _, _, address = socket.getaddrinfo(
        host.strip('[]') or '0.0.0.0', port, type=socket.SOCK_STREAM,
        flags=socket.AI_PASSIVE)[0]
    listener = socket.socket(family, kind)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(address)
    listener.listen(128)
  except OSError as error:
    raise UserError(
        f'host={host} port={port}: cannot listen there: '
        f'{error.strerror or error}; choose another port') from error
  return listener
