"""Runs a studio in a thread of the test, at a free port."""

import json
import threading
import urllib.error
import urllib.request

import uvicorn

from colorjax.studio import models, server


class Running:
  """A studio that serves until `stop`."""

  def __init__(self, paths, folder, *, port=0, **options):
    folder.mkdir(exist_ok=True)
    self.socket = server._listening('127.0.0.1', port)
    self.port = self.socket.getsockname()[1]
    self.address = f'http://127.0.0.1:{self.port}/'
    self.folder = folder
    application = server.application(
        paths if isinstance(paths, models.Models) else models.Models(paths),
        folder, **options)
    self._server = uvicorn.Server(uvicorn.Config(
        application, log_level='error', access_log=False, lifespan='on',
        timeout_graceful_shutdown=1))
    self._thread = threading.Thread(
        target=self._server.run, kwargs={'sockets': [self.socket]}, daemon=True)
    self._thread.start()

  def stop(self):
    self._server.should_exit = True
    self._thread.join(20)
    self.socket.close()

  def ask(self, path, body=None, *, method=None, session=None, **headers):
    """Returns status, headers and body of the answer to a request."""
    headers = {name.replace('_', '-'): x for name, x in headers.items()}
    if isinstance(body, dict | list):
      body = json.dumps(body).encode()
      headers.setdefault('Content-Type', 'application/json')
    elif body is not None:
      headers.setdefault('Content-Type', 'application/octet-stream')
    if session is not None:
      headers['X-Session'] = session
    request = urllib.request.Request(
        self.address + path, body, headers, method=method)
    try:
      with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
      with error:
        return error.code, dict(error.headers), error.read()

  def json(self, *args, **options):
    status, _, body = self.ask(*args, **options)
    value = json.loads(body)
    assert status < 300, value
    return value

  def session(self):
    return self.json('api/session', b'', method='POST')['session']

  def upload(self, session, data):
    return self.json('api/photos', data, session=session)
