"""A study's data: from the user's own files, from the user's own problem, and what the card says of it."""

import os
import subprocess
import sys
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from scipy.sparse import diags, identity, kron
from scipy.sparse.linalg import spsolve

from ddis.cli import main
from ddis.config import Study
from ddis.data import hdf5
from ddis.data.card import field_digests, field_statistics, repetitions, source_text
from ddis.data.generate import Request, generate_file
from ddis.data.hdf5 import read_attributes
from ddis.data.residual import discretisation_error
from ddis.data.store import FIELDS, PAIRS, open_pairs, read_pairs, write_pairs
from ddis.errors import InputError
from ddis.models.normalisation import Normalisation, statistics
from ddis.pde import make_problem
from ddis.provenance import file_digest
from ddis.settings import SPLITS
from ddis.stages import card, generate
from ddis.stages.common import load_pairs, training_normalisation
from ddis.stages.records import input_digests, name_of
from ddis.steps import Step

ROOT = Path(__file__).parents[1]
COUNTS = {"train": 30, "validation": 8, "test": 4}
OWN = "examples.screened_poisson:ScreenedPoisson"


def study(pde: str = "poisson", files: dict[str, str] | None = None, **parameters) -> Study:
    return Study.load(
        {
            "study": "t",
            "problems": {"mine": {"pde": pde, **parameters}},
            "data": {"resolution": 16, **COUNTS, **({"files": {"mine": files}} if files else {})},
            "fractions": [1.0],
            "observations": {"sparse": {"count": 10}},
            "runs": {"ddis-gn": {}},
        }
    )


@pytest.fixture
def files(tmp_path, monkeypatch) -> dict[str, str]:
    """A file for each split, named from the working directory; `train` has more fields than the study uses."""
    monkeypatch.chdir(tmp_path)
    for split, count in COUNTS.items():
        request = Request("poisson", {}, 16, count + 5 * (split == "train"), 3, split)
        generate_file(Path("own") / f"{split}.h5", request, "key", {"configuration": "abc"})
    return {split: f"own/{split}.h5" for split in SPLITS}


def test_a_study_takes_files(files):
    made = study(files=files)
    for split in SPLITS:
        generate.run(made, "mine", split)
        pairs, source = load_pairs(made, "mine", split), read_pairs(files[split])
        assert np.array_equal(pairs.coefficient, source.coefficient[: COUNTS[split]])
        assert np.array_equal(pairs.solution, source.solution[: COUNTS[split]])
        assert pairs.attributes["source"] == {
            "kind": "generated",
            "seed": 3,
            "split": split,
            "file": files[split],
            "digest": source.attributes["digest"],
        }
    assert Study.load(made.resolved()) == made


def test_the_content_of_a_file_is_an_input_of_the_stages(files):
    def digests() -> list[str]:
        made = study(files=files)
        return [made.digest("generate", problem="mine", split=s) for s in SPLITS] + [
            made.digest("train", problem="mine", model="prior")
        ]

    before = digests()
    assert before == digests() and before[0] != study().digest("generate", problem="mine", split="train")
    pairs = read_pairs(files["train"])
    write_pairs(files["train"], 2 * pairs.coefficient, 2 * pairs.solution, pairs.attributes)
    assert [x == y for x, y in zip(before, digests(), strict=True)] == [False, True, True, False]


@pytest.mark.parametrize("pde", ["poisson", "helmholtz", "darcy-source"])
@pytest.mark.parametrize("given", [False, True])
def test_a_training_split_holds_its_statistics(pde, given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if given:
        for split, count in COUNTS.items():
            request = Request(pde, {}, 16, count + 5, 3, split)
            generate_file(Path("own") / f"{split}.h5", request, "key", {"configuration": "abc"})
    made = study(pde, {split: f"own/{split}.h5" for split in SPLITS} if given else None)
    generate.run(made, "mine", "train")
    path, problem = made.folder / "data" / "mine" / "train.h5", made.make_problem("mine")
    pairs, (coefficient, solution) = read_pairs(path), problem.spaces(16)
    free = problem.relax(torch.from_numpy(pairs.coefficient)).numpy()
    expected = {
        "coefficient": Normalisation.of(pairs.coefficient, coefficient),
        "free": Normalisation.of(free, coefficient),
        "solution": Normalisation.of(pairs.solution, solution),
    }
    with monkeypatch.context() as patch:
        patch.delattr("ddis.stages.common.open_pairs")  # its fields are not read
        assert {kind: training_normalisation(made, "mine", kind) for kind in expected} == expected
    write_pairs(path, pairs.coefficient, pairs.solution, {k: v for k, v in pairs.attributes.items() if k != "statistics"})
    assert {kind: training_normalisation(made, "mine", kind) for kind in expected} == expected


def test_data_are_hashed_by_whoever_made_them_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made, step = study(), Step("train", {"problem": "mine", "model": "prior"})
    for split in ("train", "validation"):
        generate.run(made, "mine", split)
    train, hashed = made.folder / "data" / "mine" / "train.h5", list[Path]()
    expected = {name_of(made, path): file_digest(path) for path in (train, train.with_name("validation.h5"))}
    monkeypatch.setattr("ddis.stages.records.input_digest", lambda path: hashed.append(path) or "new")
    assert input_digests(made, step) == expected and not hashed
    os.utime(train)  # as a file is that was changed after its record was written
    assert input_digests(made, step) == expected | {name_of(made, train): "new"} and hashed == [train]


def change(files: dict[str, str], split: str, **attributes) -> None:
    pairs = read_pairs(files[split])
    write_pairs(files[split], pairs.coefficient, pairs.solution, {**pairs.attributes, **attributes})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: Path(f["test"]).unlink(), "data.files.mine.test: no file own/test.h5 in"),
        (lambda f: Path(f["test"]).write_text("x"), "data.files.mine.test: own/test.h5 is not an HDF5 file: the signature"),
        (lambda f: f.update(test=f["validation"]), "own/validation.h5 holds the same fields as validation; splits must differ"),
        (lambda f: f.update(train=f["test"]), "data.files.mine.train: own/test.h5 holds 4 fields, 30 are needed"),
        (lambda f: change(f, "test", pde="helmholtz"), "own/test.h5 holds helmholtz with"),
        (lambda f: change(f, "test", parameters={"alpha": 3.0, "tau": 3.0}), "and problem 'mine' is poisson with"),
        (lambda f: f.update(extra="x"), "data.files.mine.extra: unknown key (got 'x'); accepted here: train, validation, test"),
    ],
)
def test_files_that_cannot_be_used(files, spoil, message):
    spoil(files)
    with pytest.raises(InputError) as error:
        study(files=files)
    assert message in str(error.value)


def test_files_for_no_problem(files):
    with pytest.raises(InputError, match=r"data\.files: other is no problem of the study; accepted: mine"):
        Study.load({**study().resolved(), "data": {"resolution": 16, **COUNTS, "files": {"other": files}}})


def test_a_damaged_file_is_found_when_it_is_taken(files):
    made, path = study(files=files), Path(files["train"])
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"own/train\.h5"):
        generate.run(made, "mine", "train")
    assert not list(Path("results/t/data").rglob("*train*"))


def test_card(files, monkeypatch):
    warned = "x.mat: relative residual 0.02, where ..."
    change(files, "train", warnings=[warned], source={"kind": "imported", "files": [{"file": "x.mat", "sha256": "0" * 64}]})
    made = study(files=files)
    for split in SPLITS:
        generate.run(made, "mine", split)
    card.run(made, "mine")
    folder = Path("results/t/data/mine")
    data, text = yaml.safe_load((folder / "card.yaml").read_text()), (folder / "card.md").read_text()
    train = read_pairs(folder / "train.h5")
    assert data["warnings"] == [f"train: {warned}"] and warned in text
    assert data["splits"]["train"]["coefficient"] == pytest.approx(
        {
            "mean": train.coefficient.mean(dtype=np.float64),
            "std": train.coefficient.std(dtype=np.float64),
            "min": train.coefficient.min(),
            "max": train.coefficient.max(),
        }
    )
    assert data["splits"]["test"]["digest"] == read_attributes(folder / "test.h5", PAIRS)["digest"]
    assert data["splits"]["test"]["residual"] < 1e-12
    assert data["pde"] == "poisson" and data["parameters"] == {"alpha": 2.0, "tau": 3.0}
    assert "boundary included" in data["grid"] and "1/15" in data["axes"] and 1e-3 < data["solver_error"] < 0.05
    assert "imported from x.mat (SHA-256 0000000000000000)" in text and "by way of own/train.h5" in text
    assert "generated with seed 3, split test" in text
    assert (folder / "pairs.png").read_bytes().startswith(b"\x89PNG")


def test_card_of_a_periodic_problem(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = study("navier-stokes")
    for split in SPLITS:
        generate.run(made, "mine", split)
    card.run(made, "mine")
    data = yaml.safe_load(Path("results/t/data/mine/card.yaml").read_text())
    assert data["domain"] == "unit square, periodic" and data["boundary"] == "periodic"
    assert data["grid"] == "16 x 16 nodes, spacing 1/16, boundary not repeated"
    assert data["fields"] == {"coefficient": "w(0)", "solution": "w(T)"}
    assert 0 < data["solver_error"] < 0.5


def test_the_error_of_the_solver_is_of_second_order():
    problem = make_problem("poisson", {})
    fine = problem.sample_coefficients(range(3), 65, 0)
    errors = [discretisation_error(problem, fine[:, ::step, ::step]) for step in (1, 2, 4)]
    assert all(1.7 < np.log2(coarse / better) < 2.3 for better, coarse in pairwise(errors)), errors


@pytest.mark.parametrize("pde", ["helmholtz", "darcy", "darcy-source", "poisson-l-shape"])
def test_statistics_are_the_same_block_by_block_and_from_a_file(pde, tmp_path, monkeypatch):
    """No more than a block of a training split is in memory."""
    monkeypatch.setattr(hdf5, "BLOCK_BYTES", 4 * 16**2 * 5)  # five fields
    problem = make_problem(pde, {}, 16)
    a = problem.sample_coefficients(range(12), 16, 0)
    arrays = dict(zip(FIELDS, (a.float().numpy(), problem.solve(a).float().numpy()), strict=True))
    write_pairs(tmp_path / "a.h5", *arrays.values(), {})
    with open_pairs(tmp_path / "a.h5") as pairs:
        found = statistics(problem, Bounded(pairs.datasets).__getitem__)
        shown = {name: field_statistics(Bounded(pairs.datasets)[name]) for name in FIELDS}
        assert field_digests(Bounded(pairs.datasets)["coefficient"]) == field_digests(arrays["coefficient"])
    free = problem.relax(torch.from_numpy(arrays["coefficient"])).numpy()
    for kind, fields in {**arrays, "free": free}.items():
        space = problem.spaces(16)[kind == "solution"]
        assert found[kind] == asdict(Normalisation.of(fields, space))
        own = fields[..., space.grid.nodes].reshape(len(fields), space.channels, -1).astype(np.float64)
        assert np.ravel(found[kind]["mean"]) == pytest.approx(own.mean(axis=(0, 2)), rel=1e-9, abs=1e-9)
        assert np.ravel(found[kind]["std"]) == pytest.approx(own.std(axis=(0, 2)), rel=1e-9)
    for name, fields in arrays.items():
        assert (shown[name]["min"], shown[name]["max"]) == (fields.min(), fields.max())


class Bounded(dict):
    """Datasets of which a few fields can be read at once: five, or as many more as the domain's mask leaves room for."""

    def __getitem__(self, name: str) -> hdf5.Mapped:
        def few(block: np.ndarray) -> np.ndarray:
            assert len(block) <= 6
            return block

        return hdf5.Mapped(super().__getitem__(name), few)


def test_statistics_of_large_offsets():
    """In blocks and without cancellation."""
    field = (1000 + np.random.default_rng(0).standard_normal((3000, 64, 64))).astype(np.float32)
    found = field_statistics(field)
    assert found["mean"] == pytest.approx(field.mean(dtype=np.float64), rel=1e-12)
    assert found["std"] == pytest.approx(field.std(dtype=np.float64), rel=1e-9)


def test_repeated_fields_are_a_warning():
    a = np.random.default_rng(0).standard_normal((6, 4, 4)).astype(np.float32)
    digests = {"train": field_digests(a[[0, 1, 1, 2]]), "validation": field_digests(a[3:]), "test": field_digests(a[[2, 4]])}
    assert repetitions(digests) == [
        "1 coefficients of train are repetitions",
        "1 coefficients of test are also in train: its errors are not those of new fields",
        "1 coefficients of test are also in validation: its errors are not those of new fields",
    ]
    assert source_text({}) == "unknown"


@pytest.fixture
def at_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_the_example_solves_its_equation(at_root):
    """Against a sparse matrix assembled here; and with c = 0 against Poisson's equation."""
    problem, size = make_problem(OWN, {"screening": 40}), 13
    a = problem.sample_coefficients(range(3), size, 0)
    second = diags([-1.0, 2.0, -1.0], [-1, 0, 1], shape=(size - 2,) * 2) * (size - 1) ** 2
    one = identity(size - 2)
    matrix = (kron(second, one) + kron(one, second) + 40 * kron(one, one)).tocsc()
    expected = spsolve(matrix, a[:, 1:-1, 1:-1].reshape(3, -1).numpy().T).T.reshape(3, size - 2, size - 2)
    u = problem.solve(a)
    assert np.allclose(u[:, 1:-1, 1:-1].numpy(), expected, rtol=1e-10, atol=1e-14)
    assert float(problem.residual(a, u).abs().max()) < 1e-12 and problem.has_closed_form
    poisson, unscreened = make_problem("poisson", {}), make_problem(OWN, {"screening": 0})
    assert torch.allclose(unscreened.solve(a), -poisson.solve(a), rtol=1e-12, atol=1e-16)
    with pytest.raises(InputError, match="screening"):
        make_problem(OWN, {"screening": -1})


def test_the_example_runs_through_generate_and_card(tmp_path, monkeypatch):
    """The very configuration of docs/own-problem.md, from a copy of the folder, as a user would run it."""
    (tmp_path / "examples").mkdir()
    for name in ("screened_poisson.py", "own_problem.yaml"):
        (tmp_path / "examples" / name).write_bytes((ROOT / "examples" / name).read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    config = "examples/own_problem.yaml"
    for split in SPLITS:
        assert main(["generate", "--config", config, "--problem", "screened", "--split", split]) == 0
    assert main(["card", "--config", config, "--problem", "screened"]) == 0
    folder = tmp_path / "results/own-problem/data/screened"
    text = (folder / "card.md").read_text()
    assert "-∇²u + c u = a" in text and "screening = 100.0" in text and "solved directly in the sine basis" in text
    assert read_pairs(folder / "train.h5", 24, 2000).attributes["pde"] == OWN


def test_the_example_by_command(tmp_path):
    """The installed command finds `examples.screened_poisson` in the working directory, and so do its workers."""
    output = tmp_path / "s.h5"
    command = [sys.executable, "-P", "-c", "import sys; from ddis.cli import main; sys.exit(main())", "generate", "--pde", OWN]
    command += ["--resolution", "24", "--count", "600", "--output", str(output), "--workers", "2", "--set", "screening=50"]
    subprocess.run(command, cwd=ROOT, env=os.environ, check=True, capture_output=True)
    assert read_pairs(output, 24, 600).attributes["parameters"]["screening"] == 50


def test_an_entry_point_is_a_name(tmp_path, monkeypatch):
    """What a package with `[project.entry-points."ddis.problems"]` leaves where it is installed."""
    folder = tmp_path / "other_package-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: other-package\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[ddis.problems]\nscreened-poisson = other_problem:ScreenedPoisson\n")
    (tmp_path / "other_problem.py").write_bytes((ROOT / "examples" / "screened_poisson.py").read_bytes())
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    problem = make_problem("screened-poisson", {"screening": 3})
    assert problem.parameters.model_dump()["screening"] == 3
    with pytest.raises(InputError, match=r"accepted: poisson.*screened-poisson"):
        make_problem("screened", {})
