"""Opens the studio: a web page on which a person colors photographs.

    python -m experiments.studio --open
    python -m experiments.studio --checkpoint=runs/mine

The page shows several colorings of a photograph. One can be taken as a whole or
by region, colors can be painted, and the result is downloaded at full
resolution. It offers all models that come with colorjax, unless --checkpoint or
--model chooses one.

Only this machine can reach the page, unless --host says otherwise; its address
then contains a token that others need. Photographs are kept in a private
temporary folder, which is removed at the end.
"""

import pathlib
from collections.abc import Sequence

from absl import flags

from experiments import model_flags, replica_flags, script

model_flags.define_checkpoint_flags()
replica_flags.define_replica_flag()
flags.adopt_module_key_flags(replica_flags)
flags.adopt_module_key_flags(model_flags)

_HOST = flags.DEFINE_string(
    'host', '127.0.0.1', 'Address at which the server listens. With 0.0.0.0, '
    'other machines can reach it, and the address of the page has a token.')
_PORT = flags.DEFINE_integer(
    'port', 8000, 'Port of the server; 0 chooses a free one.', 0, 65535)
_NAMES = flags.DEFINE_list(
    'names', [], 'Further names of this machine that addresses may use.')
_OPEN = flags.DEFINE_bool('open', False, 'Open the page in a browser.')
_MAX_MEGABYTES = flags.DEFINE_integer(
    'max_megabytes', 200, 'Largest size of an uploaded file.', lower_bound=1)
_MAX_MEGAPIXELS = flags.DEFINE_integer(
    'max_megapixels', 120, 'Largest photograph.', lower_bound=1)
_MAX_PHOTOS = flags.DEFINE_integer(
    'max_photos', 12, 'Photographs of one page.', lower_bound=1)
_MAX_SESSIONS = flags.DEFINE_integer(
    'max_sessions', 32, 'Pages that are open at the same time; with more, the '
    'one that was used longest ago ends.', lower_bound=1)
_MAX_MEMORY = flags.DEFINE_integer(
    'max_memory_megabytes', 1500, 'Memory of the photographs of all pages.',
    lower_bound=1)
_IDLE_MINUTES = flags.DEFINE_float(
    'idle_minutes', 240.0, 'A page that is not used for so long ends.',
    lower_bound=0.01)


def main(argv: Sequence[str]) -> int:
  """Serves the studio until Ctrl-C."""
  del argv
  from colorjax.errors import UserError

  try:
    from colorjax.studio import models, server, sessions
  except ModuleNotFoundError as error:
    if error.name not in ('starlette', 'uvicorn'):
      raise
    raise UserError(f'{error.name} is not installed: pip install -e '
                    "'.[studio]'") from error
  flags_of = flags.FLAGS
  chosen = model_flags.checkpoint()
  is_own = flags_of.checkpoint is not None
  server.serve(
      models.find(pathlib.Path(chosen) if is_own and chosen else None,
                  flags_of.model, replica=flags_of.replica),
      host=_HOST.value, port=_PORT.value, names=_NAMES.value,
      limits=sessions.Limits(
          file_bytes=_MAX_MEGABYTES.value * 10**6,
          pixels=_MAX_MEGAPIXELS.value * 10**6, photos=_MAX_PHOTOS.value,
          sessions=_MAX_SESSIONS.value,
          memory_bytes=_MAX_MEMORY.value * 10**6,
          idle_seconds=60 * _IDLE_MINUTES.value),
      say=lambda line: print(line, flush=True),
      opened=_open if _OPEN.value else lambda address: None)
  return 0


def _open(address: str) -> None:
  """Opens the page in a browser."""
  import webbrowser

  webbrowser.open(address)


if __name__ == '__main__':
  script.run(main)
