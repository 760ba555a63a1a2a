"""The error that a person can act on."""


class UserError(ValueError):
  """Something the user can mend: a file, a flag, a shape.

  The message is one line that names the thing and says what to do. Experiment
  scripts print it without a traceback; every other exception is a bug and
  keeps its traceback.
  """
