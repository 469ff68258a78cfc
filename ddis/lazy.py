"""torch and parts of scipy, imported when first used: `from ddis.lazy import torch` in place of `import torch`.

Of scipy.special only functions of single numbers, as its package is slow to import: `erf` is there, `logsumexp` is not.

For modules that say what a study is as well as compute. The workflow asks them much, and stages that only read files ask them a
little, and neither computes with torch, whose import takes longer than all that they do.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from importlib import import_module
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any

__all__ = ["distance", "quick_imports", "special", "stats", "torch"]

if TYPE_CHECKING:
    import torch
    from scipy import special, stats
    from scipy.spatial import distance
else:

    class _Later:
        """Has the attributes of a module, which is imported when the first is asked for; without the package `bare`."""

        def __init__(self, name: str, bare: str | None = None):
            self._name, self._bare = name, bare

        def __getattr__(self, attribute: str) -> Any:
            with nullcontext() if self._bare is None else quick_imports(self._bare):
                found = getattr(import_module(self._name), attribute)
            setattr(self, attribute, found)
            return found

    torch, stats, distance = (_Later(name) for name in ("torch", "scipy.stats", "scipy.spatial.distance"))
    # The package itself imports numpy's compiler of Fortran and tools for tests, eight times as long as the functions take.
    special = _Later("scipy.special._ufuncs", bare="scipy.special")


class _StandIn(ModuleType):
    """Has functions of the module that it is called after, which is imported when one is called."""

    def __getattr__(self, attribute: str) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            return getattr(import_module(self.__name__), attribute)(*arguments, **options)

        return call


@contextmanager
def quick_imports(bare: str, later: Sequence[str] = (), without: str | None = None) -> Iterator[None]:
    """Imports inside the block do less: for packages that import what only parts of them need, or can do without.

    bare     modules of this package are imported without the package itself
    later    of these modules functions are imported, and the modules themselves when one is called
    without  is not found
    """
    spec = find_spec(bare)
    known: dict[str, Any] = {name: _StandIn(name) for name in later} | ({} if without is None else {without: None})
    known |= {} if spec is None else {bare: module_from_spec(spec)}
    known = {name: module for name, module in known.items() if name not in sys.modules}
    sys.modules |= known
    try:
        yield
    finally:
        for name in known:
            del sys.modules[name]
