"""Refuses requests that do not come from the studio's own page or its owner.

A page of another site can make a browser send requests to an address of this
machine. Such requests are recognized:

  Host             names this server. A name of another site that resolves to
                   this machine (DNS rebinding) is refused.
  Origin and       if the browser sends them, name this server.
  Sec-Fetch-Site
  the token        begins every path, if the server can be reached from other
                   machines.
"""

import hashlib
import hmac
import ipaddress
import json
from collections.abc import Collection
from typing import Any

LOOPBACK = ('localhost', '127.0.0.1', '::1')
"""Names of this machine that no other machine can be reached by."""

_HEADERS = {
    'Content-Security-Policy': (
        "default-src 'none'; script-src 'self'; style-src 'self'; "
        "img-src 'self' blob:; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"),
    'X-Content-Type-Options': 'nosniff',
    'X-Frame-Options': 'DENY',
    'Referrer-Policy': 'no-referrer',
    'Cross-Origin-Opener-Policy': 'same-origin',
    'Cross-Origin-Resource-Policy': 'same-origin',
    'Permissions-Policy': 'camera=(), geolocation=(), microphone=()',
    'Cache-Control': 'no-store',
}

_SAFE = ('GET', 'HEAD')


def is_loopback(host: str) -> bool:
  """Whether a server that listens at this address is only for this machine."""
  if host == 'localhost':
    return True
  try:
    return ipaddress.ip_address(host.strip('[]')).is_loopback
  except ValueError:
    return False


class Guard:
  """ASGI middleware that refuses foreign requests and adds safe headers."""

  def __init__(self, app: Any, *, hosts: Collection[str] = LOOPBACK,
               token: str | None = None):
    """Wraps an application.

    Args:
      app: the ASGI application.
      hosts: names that `Host` may have, in lower case, without a port. With a
        token, it may also be any IP address: one cannot be made to point to
        this machine, as a name can.
      token: the first part of every path, or None.
    """
    self._app = app
    self._hosts = frozenset(hosts)
    self._token = token

  async def __call__(self, scope, receive, send):
    """Handles one request."""
    if scope['type'] == 'lifespan':
      await self._app(scope, receive, send)
      return
    if scope['type'] != 'http':
      return  # a web socket is closed by the server
    async def send_safely(message):
      if message['type'] == 'http.response.start':
        ours = [(name.lower().encode(), value.encode())
                for name, value in _HEADERS.items()]
        names = {name for name, _ in ours}
        message = {**message, 'headers': [
            *((name, value) for name, value in message['headers']
              if name.lower() not in names), *ours]}
      await send(message)

    refusal = self._refusal(scope)
    if refusal is None and self._token is not None:
      scope = _without_token(scope, self._token)
      if scope is None:
        refusal = 403, ('the address needs the token that the studio printed '
                        'when it was started')
    if refusal is None:
      await self._app(scope, receive, send_safely)
    else:
      await _answer(send_safely, *refusal)

  def _is_ours(self, name: str) -> bool:
    return name in self._hosts or (self._token is not None and _is_ip(name))

  def _refusal(self, scope) -> tuple[int, str] | None:
    """Status and reason why a request is refused; None if it is not."""
    headers = [(name.lower(), value.decode('latin-1'))
               for name, value in scope['headers']]
    hosts = [value for name, value in headers if name == b'host']
    if len(hosts) != 1 or not self._is_ours(_name_of(hosts[0])):
      return 421, 'this server has another name'
    named = dict(headers)
    is_navigation = (named.get(b'sec-fetch-mode') == 'navigate'
                     and scope['method'] in _SAFE
                     and '/api/' not in scope['path'])
    origin = named.get(b'origin')
    if origin is not None and origin != f'{scope["scheme"]}://{hosts[0]}':
      return 403, 'requests of other sites are refused'
    site = named.get(b'sec-fetch-site', 'none')
    if site not in ('same-origin', 'none') and not is_navigation:
      return 403, 'requests of other sites are refused'
    return None


def _name_of(host: str) -> str:
  """The value of a Host header without its port, in lower case."""
  if host.startswith('['):
    name, _, rest = host[1:].partition(']')
    return name.lower() if not rest or rest[0] == ':' else ''
  return host.partition(':')[0].lower().rstrip('.')


def _is_ip(name: str) -> bool:
  try:
    ipaddress.ip_address(name)
  except ValueError:
    return False
  return True


def _without_token(scope: dict[str, Any], token: str) -> dict[str, Any] | None:
  """The request without the token in its path; None if it has another one."""
  first, _, rest = scope['path'].lstrip('/').partition('/')
  # Digests have equal lengths, so that the comparison takes equal time.
  given, wanted = (hashlib.sha256(text.encode('utf-8', 'replace')).digest()
                   for text in (first, token))
  if not hmac.compare_digest(given, wanted):
    return None
  if scope['path'].rstrip('/') == f'/{first}' and scope['path'][-1] != '/':
    return {**scope, 'path': '/to-page', 'raw_path': b'/to-page',
            'root_path': f'/{first}'}
  path = f'/{rest}'
  return {**scope, 'path': path, 'raw_path': path.encode(), 'root_path': ''}


async def _answer(send, status: int, reason: str) -> None:
  body = json.dumps({'error': reason}).encode()
  await send({'type': 'http.response.start', 'status': status, 'headers': [
      (b'content-type', b'application/json'),
      (b'content-length', str(len(body)).encode())]})
  await send({'type': 'http.response.body', 'body': body})
