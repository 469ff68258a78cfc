"""The stages of a study, one file each, and the code that each of them runs."""

import ast
import hashlib
import inspect
from functools import cache
from pathlib import Path

from ddis.provenance import code_digest, file_digest

PACKAGE = Path(__file__).parents[1]
# No result depends on these: they check, name, watch and report. What the configuration says is in the digests of `Study`.
BESIDE = frozenset(
    {
        *("cli", "config", "errors", "pde", "progress", "provenance", "registry", "sampling.methods", "settings", "signals"),
        *("stages.records", "stages.takeover", "stages.verify", "tracking", "written", "yaml_text"),
    }
)


def code(stage: str, *classes: type) -> str:
    """16 hexadecimal digits that change with the code that a stage runs, docstrings and comments aside.

    That is the stage's file and every module of ddis that it imports, directly or not; `classes` adds what registries load, the
    classes of the problem and of the method, also those from outside the package.
    """
    names = {made.__module__: made for made in classes}
    inside = [name.removeprefix("ddis.") for name in names if name.startswith("ddis.")]
    outside = [file_digest(inspect.getfile(made)) for name, made in sorted(names.items()) if not name.startswith("ddis.")]
    digests = [code_digest(modules(f"stages.{stage}", *inside)), *outside]
    return hashlib.sha256("".join(digests).encode()).hexdigest()[:16]


def modules(*roots: str) -> set[str]:
    """Names, inside ddis, of the given modules and of all that they import, except those in BESIDE."""
    found: set[str] = set()
    queue = list(roots)
    while queue:
        name = queue.pop()
        if name not in found and name not in BESIDE and not name.startswith("tracking."):
            found.add(name)
            queue.extend(_imports(name))
    return found


@cache
def _imports(module: str) -> tuple[str, ...]:
    tree = ast.parse(_file(module).read_bytes())
    imported = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ddis")]
    candidates = [f"{node.module}.{alias.name}" for node in imported for alias in node.names]
    candidates += [node.module or "" for node in imported]
    inside = [name.removeprefix("ddis.") for name in candidates]
    return tuple(name for name in inside if _file(name).is_file())


def _file(module: str) -> Path:
    return PACKAGE.joinpath(*module.split(".")).with_suffix(".py")
