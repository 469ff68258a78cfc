"""The one exception that users are meant to read."""


class InputError(ValueError):
    """Input that cannot be used; the message says what it is, and what to do. The command line prints it without a traceback."""


class DamagedError(InputError):
    """A file whose own bytes prove that it is not whole, or not of its kind."""
