"""pyproject.toml, constraints.txt and environment.yml describe one environment."""

import ast
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def requirements() -> list[Requirement]:
    parts = [PROJECT["build-system"]["requires"], PROJECT["project"]["dependencies"]]
    parts += PROJECT["project"]["optional-dependencies"].values()
    return [Requirement(text) for part in parts for text in part]


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    for pin in found:
        assert [s.operator for s in pin.specifier] == ["=="], f"{pin} is no pin"
        assert pin.marker is None and pin.url is None
    versions = {canonicalize_name(pin.name): next(iter(pin.specifier)).version for pin in found}
    assert len(versions) == len(found), "a package is pinned twice"
    return versions


def test_every_requirement_is_pinned_to_a_version_that_it_accepts() -> None:
    pinned = pins()
    for requirement in requirements():
        version = pinned.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name} is not in constraints.txt"
        assert requirement.specifier.contains(version, prereleases=True), f"{requirement} against the pin {version}"


def needed() -> Iterator[tuple[str, Requirement]]:
    """Every requirement that applies here, of ddis with what its development needs down to the last package: asked by, what."""
    todo = [("ddis", requirement) for requirement in requirements()]
    seen = set()
    while todo:
        by, requirement = todo.pop()
        if str(requirement) in seen or (by == "torch" and "platform_system" in str(requirement.marker)):
            continue  # with CUDA, torch pins its libraries itself
        seen.add(str(requirement))
        yield by, requirement
        for text in distribution(requirement.name).requires or []:
            further = Requirement(text)
            extras = ({"extra": extra} for extra in ["", *requirement.extras])
            if further.marker is None or any(further.marker.evaluate(extra) for extra in extras):
                todo.append((requirement.name, further))


def test_the_pins_are_complete_agree_with_each_other_and_are_all_needed() -> None:
    """So that `pip install --no-deps -r constraints.txt` makes the whole environment, and pip need not resolve anything."""
    pinned, used = pins(), set()
    for by, requirement in needed():
        name = canonicalize_name(requirement.name)
        assert name in pinned, f"{by} needs {requirement}, which constraints.txt does not pin"
        assert requirement.specifier.contains(pinned[name], prereleases=True), f"{by} needs {requirement}, pinned: {pinned[name]}"
        used.add(name)
    assert pinned.keys() == used, f"needed by nothing: {pinned.keys() - used}"


def test_the_environment_is_the_pinned_one() -> None:
    found = {name: distribution(name).version.partition("+")[0] for name in pins()}
    assert found == pins()


def test_pins_name_no_local_build_and_no_index() -> None:
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert "+" not in text.replace("`", "") and "://" not in text and "--" not in text


def test_conda_environment_installs_the_same_project_with_the_same_pins() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    *conda, pip = environment["dependencies"]
    names = {Requirement(text.replace("=", "==", 1)).name for text in conda}
    assert names == {"python", "pip"}
    assert pip == {"pip": ["-c constraints.txt", "-e .[dev]"]}
    python = next(text.partition("=")[2] for text in conda if text.startswith("python="))
    assert SpecifierSet(PROJECT["project"]["requires-python"]).contains(python)
    assert PROJECT["tool"]["mypy"]["python_version"] == python


def test_every_imported_package_is_required() -> None:
    required = {canonicalize_name(Requirement(text).name) for text in PROJECT["project"]["dependencies"]}
    distributions = packages_distributions()
    for source in (ROOT / "ddis").rglob("*.py"):
        for package in imported_packages(source) - sys.stdlib_module_names - {"ddis"}:
            owners = {canonicalize_name(name) for name in distributions.get(package, [package])}
            assert owners & required, f"{source.relative_to(ROOT)} imports {package}, which pyproject.toml does not require"


def imported_packages(source: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(source.read_bytes())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found
