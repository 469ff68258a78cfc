"""torch and parts of scipy, imported when first used: `from ddis.lazy import torch` in place of `import torch`.

For modules that say what a study is as well as compute. The workflow asks them much, and stages that only read files ask them a
little, and neither computes with torch, whose import takes longer than all that they do.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = ["distance", "special", "torch", "without"]

if TYPE_CHECKING:
    import torch
    from scipy import special
    from scipy.spatial import distance
else:

    class _Later:
        """Has the attributes of a module, which is imported when the first is asked for."""

        def __init__(self, name: str):
            self._name = name

        def __getattr__(self, attribute: str) -> Any:
            found = getattr(import_module(self._name), attribute)
            setattr(self, attribute, found)
            return found

    torch, special, distance = (_Later(name) for name in ("torch", "scipy.special", "scipy.spatial.distance"))


@contextmanager
def without(name: str) -> Iterator[None]:
    """Imports inside the block do not find the package `name`, unless it is there already: of others that can do without it."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]
