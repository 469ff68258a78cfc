"""torch and parts of scipy, imported when first used: `from ddis.lazy import torch` in place of `import torch`.

For modules that say what a study is as well as compute. The workflow asks them much, and stages that only read files ask them a
little, and neither computes with torch, whose import takes longer than all that they do.
"""

import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

__all__ = ["distance", "quick_imports", "quick_packages", "special", "stats", "torch"]

_RULES = "torch._meta_registrations"  # for tensors without values

if TYPE_CHECKING:
    import torch
    from scipy import special, stats
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

    torch, special, stats, distance = (
        _Later(name) for name in ("torch", "scipy.special", "scipy.stats", "scipy.spatial.distance")
    )


class _StandIn(ModuleType):
    """Has functions of the module that it is called after, which is imported when one is called."""

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):  # who looks through all modules asks for their files
            raise AttributeError(attribute)

        def call(*arguments: Any, **options: Any) -> Any:
            return getattr(import_module(self.__name__), attribute)(*arguments, **options)

        return call


@contextmanager
def quick_imports(later: Sequence[str], bare: str | None = None, without: str | None = None) -> Iterator[None]:
    """Imports inside the block do less: for packages that import what only parts of them need, or can do without.

    later    of these modules functions are imported, and the modules themselves when one is called
    bare     modules of this package are imported without the package itself
    without  is not found
    """
    known: dict[str, Any] = {name: _StandIn(name) for name in later}
    if without:
        known[without] = None
    if bare and (spec := find_spec(bare)):
        known[bare] = module_from_spec(spec)
    known = {name: module for name, module in known.items() if name not in sys.modules}
    sys.modules |= known
    try:
        yield
    finally:
        for name in known:
            del sys.modules[name]


@contextmanager
def _torch_alone() -> Iterator[None]:
    """torch is imported without `_RULES`, and does not read the source of what registers an operation with it."""
    found = inspect.getframeinfo
    inspect.getframeinfo = partial(found, context=0)
    try:
        with quick_imports([_RULES]):
            yield
    finally:
        inspect.getframeinfo = found


class _QuickFinder(MetaPathFinder, Loader):
    """Finds torch and pandas as others do, and has them imported quickly.

    A module of torch that is asked for after that is found once `_RULES` has been imported, which may have brought it.
    """

    QUICK: ClassVar[dict[str, Callable[[], AbstractContextManager[None]]]] = {
        "torch": _torch_alone,
        "pandas": partial(quick_imports, (), without="pyarrow"),
    }

    def __init__(self) -> None:
        self._torch_is_there = False

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name in self.QUICK:
            return self._quick(name)
        if name.startswith("torch.") and self._torch_is_there:
            self._torch_is_there = False
            import_module(_RULES)
            spec = sys.modules[name].__spec__ if name in sys.modules else None
            if spec is not None:
                spec.loader = self
            return spec
        return None

    def _quick(self, name: str) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            with self.QUICK[name]():
                execute(module)
            self._torch_is_there |= name == "torch"

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return sys.modules[spec.name]

    def exec_module(self, module: ModuleType) -> None:
        """It has been."""


def quick_packages() -> None:
    """From here on torch and pandas leave out, when they are imported, what the stages do not use: a quarter of torch's time.

    Of torch that is what it must know of tensors without values. It comes with any module of torch that `import torch` does not
    bring, such as compilers and what `with torch.device("meta")` needs. pandas keeps text as Python's own, without pyarrow.
    """
    sys.meta_path.insert(0, _QuickFinder())
