"""Foreign requests are refused, and every answer has safe headers."""

import asyncio

import pytest

from colorjax.studio import guard

OWN = {'host': 'localhost:8000'}


async def application(scope, receive, send):
  await send({'type': 'http.response.start', 'status': 200, 'headers': [
      (b'content-type', b'text/plain'), (b'cache-control', b'public')]})
  await send({'type': 'http.response.body', 'body': scope['path'].encode()})


def ask(path='/', headers=None, method='GET', **options):
  messages = []

  async def send(message):
    messages.append(message)

  scope = {'type': 'http', 'method': method, 'path': path, 'scheme': 'http',
           'headers': [(name.encode(), value.encode()) for name, value in (
               headers or OWN).items()]}
  asyncio.run(guard.Guard(application, **options)(scope, None, send))
  return (messages[0]['status'], dict(messages[0]['headers']),
          messages[1]['body'].decode())


@pytest.mark.parametrize(('host', 'status'), [
    ('localhost', 200), ('localhost:8000', 200), ('127.0.0.1:9', 200),
    ('[::1]:8000', 200), ('LocalHost', 200), ('evil.example', 421),
    ('localhost.evil.example', 421), ('127.0.0.1.evil.example', 421),
    ('evil.example:8000', 421), ('', 421), ('[::1]evil', 421)])
def test_host(host, status):
  assert ask(headers={'host': host})[0] == status


@pytest.mark.parametrize(('host', 'status'), [
    ('192.168.1.4:8000', 200), ('[2001:db8::1]', 200), ('evil.example', 421),
    ('192.168.1.4.evil.example', 421)])
def test_host_with_a_token(host, status):
  assert ask('/secret/', {'host': host}, token='secret')[0] == status
  assert ask('/', {'host': host})[0] == 421


def test_no_host_or_two():
  assert ask(headers={'accept': '*'})[0] == 421
  assert ask(headers={'host': 'localhost', 'Host': 'evil.example'})[0] == 421


@pytest.mark.parametrize(('origin', 'status'), [
    ('http://localhost:8000', 200), ('http://localhost', 403),
    ('https://localhost:8000', 403), ('http://evil.example', 403),
    ('null', 403), ('http://localhost:8001', 403)])
@pytest.mark.parametrize('method', ['GET', 'POST', 'OPTIONS'])
def test_origin(origin, status, method):
  got, headers, _ = ask(
      '/api/photos', OWN | {'origin': origin}, method)
  assert got == status
  assert not [name for name in headers
              if name.startswith(b'access-control')]


@pytest.mark.parametrize(('site', 'mode', 'path', 'method', 'status'), [
    ('same-origin', 'cors', '/api/photos', 'POST', 200),
    ('none', 'navigate', '/', 'GET', 200),
    ('cross-site', 'navigate', '/', 'GET', 200),
    ('cross-site', 'navigate', '/', 'POST', 403),
    ('cross-site', 'navigate', '/api/status', 'GET', 403),
    ('cross-site', 'no-cors', '/main.js', 'GET', 403),
    ('same-site', 'cors', '/api/status', 'GET', 403)])
def test_other_sites(site, mode, path, method, status):
  assert ask(path, OWN | {'sec-fetch-site': site, 'sec-fetch-mode': mode},
             method)[0] == status


@pytest.mark.parametrize(('path', 'status', 'passed'), [
    ('/secret/', 200, '/'), ('/secret/api/status', 200, '/api/status'),
    ('/secret', 200, '/to-page'), ('/', 403, None), ('/api/status', 403, None),
    ('/Secret/', 403, None), ('/secretx/', 403, None), ('/secre/', 403, None)])
def test_token(path, status, passed):
  got, _, body = ask(path, token='secret')
  assert got == status
  assert passed is None or body == passed


def test_headers_of_every_answer():
  for headers in (ask()[1], ask(headers={'host': 'evil.example'})[1]):
    policy = headers[b'content-security-policy'].decode()
    assert policy.startswith("default-src 'none'; script-src 'self'; ")
    assert 'unsafe' not in policy
    assert '*' not in policy
    assert headers[b'x-content-type-options'] == b'nosniff'
    assert headers[b'cache-control'] == b'no-store'
    assert headers[b'referrer-policy'] == b'no-referrer'


@pytest.mark.parametrize(('host', 'expected'), [
    ('127.0.0.1', True), ('127.9.9.9', True), ('::1', True), ('[::1]', True),
    ('localhost', True), ('0.0.0.0', False), ('::', False),
    ('192.168.1.4', False), ('example.org', False), ('', False)])
def test_loopback(host, expected):
  assert guard.is_loopback(host) is expected
