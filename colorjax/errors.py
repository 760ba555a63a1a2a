"""The error for mistakes that the user can correct."""


class UserError(ValueError):
  """A mistake that the user can correct, in a file, a setting or a shape.

  The message is one line that names the file, the setting or the shape and says
  what to do. Experiment scripts print it without a traceback. Any other
  exception is a bug and keeps its traceback.
  """
