"""Named things that live in one file each: `name -> "module:attribute"`, loaded when asked for.

Things outside the package are found in two ways: an entry point of the group (`ddis.problems`, `ddis.methods`), or
`module:attribute` written in place of the name in the configuration.
"""

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar

from ddis.errors import InputError

T = TypeVar("T")


class Registry:
    """A registry of one kind of thing; `kind` is the configuration's key for it, for messages."""

    def __init__(self, kind: str, group: str, builtin: dict[str, str]):
        self.kind, self.group, self.builtin = kind, group, builtin

    def names(self) -> list[str]:
        """The names that can be used, in the order in which they were registered."""
        return [*self.builtin, *sorted(point.name for point in entry_points(group=self.group))]

    def load(self, name: Any) -> Any:
        """The thing called `name`, or the one at `module:attribute`. Raises InputError if there is none."""
        if not isinstance(name, str):
            raise InputError(f"{self.kind} {name!r}; accepted: {', '.join(self.names())}, or module:attribute of your own")
        target = self.builtin.get(name) or (name if ":" in name else None)
        if target is None:  # the slow look-up comes last
            target = {point.name: point.value for point in entry_points(group=self.group)}.get(name)
        if target is None:
            accepted = ", ".join(self.names())
            raise InputError(f"{self.kind} {name!r} is unknown; accepted: {accepted}, or module:attribute of your own")
        module, _, attribute = target.partition(":")
        if ":" in name and str(Path.cwd()) not in sys.path:
            sys.path.append(str(Path.cwd()))  # a user's own file, as `python -m` would find it
        try:
            return getattr(import_module(module), attribute)
        except (Exception, SystemExit) as error:  # whatever a user's own file does when it is imported
            raise InputError(f"{self.kind} {name!r} cannot be loaded: {_told(error)}") from error

    def load_class(self, name: Any, base: type[T]) -> type[T]:
        """The subclass of `base` called `name`. Raises InputError if there is none."""
        made = self.load(name)
        if not (isinstance(made, type) and issubclass(made, base)):
            raise InputError(f"{self.kind} {name!r} is no subclass of {base.__module__}.{base.__qualname__}")
        if missing := sorted(getattr(made, "__abstractmethods__", ())):
            raise InputError(f"{self.kind} {name!r} does not define {', '.join(missing)}")
        return made

    @contextmanager
    def calling(self, *names: str) -> Iterator[None]:
        """What things from outside the package raise in the block is told in one line, as InputError."""
        try:
            yield
        except InputError:
            raise
        except Exception as error:
            outside = [name for name in names if name not in self.builtin]
            if not outside:
                raise
            raise InputError(f"{self.kind} {', '.join(map(repr, outside))} fails: {_told(error)}") from error


def _told(error: BaseException) -> str:
    """An error as Python shows it, and where it was raised."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = "" if last.filename.startswith("<frozen") or last.filename == __file__ else f" ({last.filename}, line {last.lineno})"
    return f"{type(error).__name__}: {error}{where}"
