"""The exceptions that users are meant to read."""

from numbers import Integral

LARGEST_WHOLE = 2**63 - 1  # that files can hold


class InputError(ValueError):
    """Input that cannot be used; the message says what it is, and what to do. The command line prints it without a traceback.

    The message is one line that every terminal can show: characters that cannot be printed stand there as escapes.
    """

    def __init__(self, message: object):
        super().__init__(printable(message))


class DamagedError(InputError):
    """A file whose own bytes prove that it is not whole, or not of its kind."""


def printable(text: object) -> str:
    """The text in one line, without control characters; bytes of a file name that are no UTF-8 as `\\xe9`."""
    line = " ".join(part.strip() for part in str(text).splitlines())
    shown = "".join(c if c.isprintable() or "\udc80" <= c <= "\udcff" else c.encode("unicode_escape").decode() for c in line)
    return shown.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def whole_number(name: str, value: object, least: int = 0) -> int:
    """An argument that is a whole number. Raises InputError for others."""
    if isinstance(value, bool) or not isinstance(value, Integral) or not least <= int(value) <= LARGEST_WHOLE:
        raise InputError(f"{name} {value!r}; accepted: a whole number, {least} or more, and below 2^63")
    return int(value)
