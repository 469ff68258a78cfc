"""Imports inside the package point downwards, whether they stand at the top of a file or in a function."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "ddis"
LAYERS = (
    "lazy",
    "commands errors importance linear randomness signals text timing written",
    "arrays progress reading registry",
    "files provenance",
    "fields grid versions yaml_text",  # a grid has a basis, and a noise has a grid: apart from each other as modules, see below
    "pde",
    "data",
    "refusals settings",
    "models observe",
    "operators priors",
    "references sampling training",
    "evaluation interpolation result",
    "inputs posterior",
    "checks",
    "config",
    "steps",
    "schema tracking trained",
    "operator prior stages",
    "cli",
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names.split()}
FORBIDDEN = {
    "evaluation": ("ddis.sampling", "ddis.pde", "ddis.operators", "ddis.priors"),  # samples say what is asked of their method
    "stages": ("mlflow",),  # stages write records; one exporter knows MLflow
    "sampling": ("h5py", "ddis.files"),
}


def modules() -> dict[str, Path]:
    paths = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}
    return {name.removesuffix(".__init__"): path for name, path in paths.items()}


def imports(path: Path, everywhere: bool = True) -> Iterator[str]:
    """Modules that a file imports; those for type checkers aside, and on request those in functions."""
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{name.name}" for name in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        elif everywhere or not isinstance(node, ast.FunctionDef):
            waiting += ast.iter_child_nodes(node)


def part(name: str) -> str:
    """The file or folder of the package that a module belongs to."""
    return name.split(".")[1] if "." in name else ""


def test_every_part_of_the_package_has_a_layer():
    assert {part(name) for name in modules()} - {"", "__main__"} == set(LEVEL)


@pytest.mark.parametrize("layer", sorted(LEVEL))
def test_imports_point_downwards(layer):
    found = {
        (layer, part(target))
        for name, path in modules().items()
        if part(name) == layer
        for target in imports(path)
        if part(target) in LEVEL and target.startswith("ddis.") and LEVEL[part(target)] >= LEVEL[layer]
    }
    upwards = {(own, other) for own, other in found if own != other and {own, other} != {"fields", "grid"}}
    assert upwards == set()


def test_no_module_imports_itself_by_way_of_others():
    known = modules()
    graph = {}
    for name, path in known.items():
        targets = {t if t in known else t.rpartition(".")[0] for t in imports(path, everywhere=False)}
        graph[name] = {target for target in targets if target in known} - {name, "ddis"}
    TopologicalSorter(graph).prepare()  # raises CycleError


@pytest.mark.parametrize("layer", FORBIDDEN)
def test_a_layer_does_not_import_what_is_not_its_business(layer):
    found = {target for name, path in modules().items() if part(name) == layer for target in imports(path)}
    assert [target for target in sorted(found) if target.startswith(FORBIDDEN[layer])] == []
