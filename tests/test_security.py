"""Files and configurations from strangers: no code of theirs runs, no other file is read, and nothing is written elsewhere."""

import ast
import os
import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import yaml

from ddis.cli import main
from ddis.config import Study
from ddis.data.store import open_pairs, read_pairs, write_pairs
from ddis.errors import InputError
from ddis.evaluation.report import _markdown
from ddis.models.checkpoint import load_tensors

ROOT = Path(__file__).parents[1]
TINY = yaml.safe_load((ROOT / "tests" / "tiny.yaml").read_text())
FIELDS = np.random.default_rng(0).standard_normal((3, 8, 8)).astype(np.float32)


class Bomb:
    """Unpickled, it makes the folder `boom`."""

    def __reduce__(self):
        return os.mkdir, ("boom",)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A working directory in which nothing must go off."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert not (tmp_path / "boom").exists()


def test_the_bomb_goes_off_where_it_is_unpickled(tmp_path):
    pickle.loads(pickle.dumps(Bomb()))
    (tmp_path / "boom").rmdir()


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_pickled_weights_are_refused(tmp_path, protocol):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(pickle.dumps(Bomb(), protocol=protocol))
    with pytest.raises(InputError, match=r"weights\.safetensors is not a safetensors file"):
        load_tensors(path)


def calls(tree: ast.AST) -> list[tuple[str, ast.Call]]:
    """All calls of a module, by the dotted name of what is called."""
    return [(ast.unparse(node.func), node) for node in ast.walk(tree) if isinstance(node, ast.Call)]


# What would run what a file holds.
UNPICKLERS = ("pickle", "dill", "joblib", "cloudpickle", "shelve", "marshal")
RUNNERS = ("torch.load", "eval", "exec", "compile", "pd.read_pickle", "np.lib.format.read_array", "yaml.load", "yaml.unsafe_load")


def offences(source: str) -> list[str]:
    """Calls and imports in a module's source that would let a file run code."""
    tree = ast.parse(source)
    names = [name for name, _ in calls(tree) if name in RUNNERS or name.endswith((".unsafe_load", "full_load"))]
    names += [
        f"{name} with {keyword.arg}"
        for name, node in calls(tree)
        for keyword in node.keywords
        if keyword.arg in ("allow_pickle", "shell", "weights_only") and getattr(keyword.value, "value", True) is not False
    ]
    names += [
        name
        for name, node in calls(tree)
        if name in ("np.load", "numpy.load") and "allow_pickle" not in [keyword.arg for keyword in node.keywords]
    ]
    for node in ast.walk(tree):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [name for name in modules if name.split(".")[0] in UNPICKLERS]
    return names


def test_the_package_never_unpickles_nor_evaluates():
    found = {
        str(path.relative_to(ROOT)): bad for path in (ROOT / "ddis").rglob("*.py") if (bad := offences(path.read_text("utf-8")))
    }
    assert found == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(path)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text, Loader)",
        "eval(text)",
        "subprocess.run(command, shell=True)",
    ],
)
def test_the_search_would_find_what_it_looks_for(source):
    assert offences(source)


def imported(*files: Path) -> int:
    return main(["import", "--pde", "poisson", "--output", "out.h5", *map(str, files)])


@pytest.mark.parametrize("kind", [".npy", ".npz"])
def test_pickled_arrays_are_refused(tmp_path, capsys, kind):
    hostile = np.array([Bomb(), Bomb()], dtype=object)
    if kind == ".npy":
        files = [tmp_path / "a.npy", tmp_path / "u.npy"]
        for path in files:
            np.save(path, hostile, allow_pickle=True)
    else:
        files = [tmp_path / "pairs.npz"]
        np.savez(files[0], coefficient=hostile, solution=hostile)
    assert imported(*files) == 2 and "error: " in capsys.readouterr().err
    assert not Path("out.h5").exists()


@pytest.mark.parametrize(
    "hostile",
    [
        np.array([FIELDS, "text", {"a": 1}], dtype=object),
        np.array([(FIELDS, "system('boom')")], dtype=[("f", object), ("g", object)]),
        "system('mkdir boom')",
    ],
)
def test_objects_in_matlab_files_are_refused(tmp_path, capsys, hostile):
    scipy.io.savemat(tmp_path / "pairs.mat", {"f_data": hostile, "phi_data": FIELDS})
    assert imported(tmp_path / "pairs.mat") == 2
    assert "f_data is not an array of real numbers" in capsys.readouterr().err


def secret(folder: Path) -> Path:
    """A file of the user's that a stranger would like to see in a result."""
    path = folder / "secret.h5"
    write_pairs(path, FIELDS, FIELDS, {})
    return path


def hostile(kind: str, path: Path, other: Path, attributes: dict) -> Path:
    """A file whose solution comes from `other`, in one of the ways of HDF5."""
    with h5py.File(path, "w") as file:
        file.create_dataset("coefficient", data=FIELDS)
        if kind == "external link":
            file["solution"] = h5py.ExternalLink(str(other), "/coefficient")
        elif kind == "soft link":
            file["hidden"] = h5py.ExternalLink(str(other), "/coefficient")
            file["solution"] = h5py.SoftLink("/hidden")
        elif kind == "external storage":
            storage = [(str(other), 0, FIELDS.nbytes)]
            file.create_dataset("solution", FIELDS.shape, FIELDS.dtype, external=storage)
        else:
            layout = h5py.VirtualLayout(FIELDS.shape, FIELDS.dtype)
            layout[:] = h5py.VirtualSource(str(other), "coefficient", FIELDS.shape)
            file.create_virtual_dataset("solution", layout)
        file.attrs.update(attributes)
    return path


@pytest.mark.parametrize("kind", ["external link", "soft link", "external storage", "virtual"])
def test_hdf5_that_reads_other_files_is_refused(tmp_path, capsys, kind):
    other = secret(tmp_path)
    with h5py.File(other) as file:
        attributes = dict(file.attrs)
    path = hostile(kind, tmp_path / "pairs.h5", other, attributes)
    with h5py.File(path) as file:
        assert file["solution"][...].shape == FIELDS.shape  # h5py alone would read it
    with pytest.raises(InputError, match=r"pairs\.h5: (hidden|solution) takes its data from elsewhere"):
        read_pairs(path)
    with pytest.raises(InputError, match="takes its data from elsewhere"), open_pairs(path):
        raise AssertionError("it was opened")
    assert imported(path) == 2
    assert "takes its data from elsewhere" in capsys.readouterr().err and not Path("out.h5").exists()


def test_scripts_in_a_strangers_texts_do_not_reach_the_report():
    html = _markdown("- train: <script>alert(1)</script> [link](javascript:alert(1)) ![x](http://example.org/x.png)\n")
    assert "<script" not in html and 'href="javascript' not in html and "<img" not in html


@pytest.mark.parametrize("name", ["..", "../other", "/etc", "a/b", ".hidden", "", "a\\b/..", "a\n", "con trol", "~root"])
@pytest.mark.parametrize("key", ["study", "problems", "observations", "runs"])
def test_names_that_would_be_paths_are_refused(key, name):
    changed = {**TINY, key: name if key == "study" else {name: next(iter(TINY[key].values()))}}
    changed.pop("tuning")
    with pytest.raises(InputError, match=key):
        Study.load(changed)


@pytest.mark.parametrize("what", ["--problem=../../x", "--model=joint-../../x", "--model=prior/../x", "--model=operator-1e1"])
def test_arguments_that_would_be_paths_are_refused(tmp_path, capsys, what):
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(TINY))
    arguments = {"--problem": "poisson", "--model": "prior"} | dict([what.split("=")])
    assert main(["train", "--config", "c.yaml", *(part for pair in arguments.items() for part in pair)]) == 2
    assert "error: " in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*")] == ["c.yaml"]


def test_yaml_makes_no_objects(tmp_path):
    (tmp_path / "c.yaml").write_text("study: !!python/object/apply:os.mkdir [boom]\n")
    with pytest.raises(InputError, match=r"c\.yaml is not YAML"):
        Study.load(tmp_path / "c.yaml")


def test_a_study_whose_folder_leads_elsewhere_is_not_written(tmp_path, capsys):
    (tmp_path / "home").mkdir()
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "tiny").symlink_to(tmp_path / "home")
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(TINY))
    for stage in (["study"], ["pairs", "--problem", "poisson", "--percent", "10"]):
        assert main([*stage, "--config", "c.yaml"]) == 2
        assert "results/tiny is a link to" in capsys.readouterr().err
    assert not list((tmp_path / "home").iterdir())
