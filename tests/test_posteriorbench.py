"""Cases laid out as PosteriorBench's release has them, through import, a study, and export: what was put in comes out."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from ddis.cli import main
from ddis.config import Study
from ddis.data.hdf5 import read_attributes
from ddis.data.references import read_references
from ddis.data.store import PAIRS, read_pairs, read_samples
from ddis.errors import InputError
from ddis.evaluation.distances import distances
from ddis.evaluation.posteriors import METRICS
from ddis.pde import make_problem
from ddis.stages import export, generate, reference, sample, tables
from ddis.stages.cost import generated
from ddis.stages.layout import reference_path, samples_path

SIZE, COUNT, DRAWS, SENSORS = 16, 3, 6, 12
RANGES = ["--set", "alpha=[1.5, 3]", "--set", "tau=[2, 4]"]


def made_cases(pde: str = "poisson", seed: int = 5) -> list[dict[str, Any]]:
    """Fields and solutions of the benchmark's equation, -∇²φ = f, with draws of the prior in place of a posterior's."""
    problem = make_problem(pde, {"alpha": (1.5, 3.0), "tau": (2.0, 4.0)} if pde == "poisson" else {})
    rng = np.random.default_rng(seed)
    a = problem.sample_coefficients(range(COUNT * (1 + DRAWS)), SIZE, seed)
    u = problem.solve(a[:COUNT]) * (-1 if pde == "poisson" else 1)
    draws = a[COUNT:].reshape(COUNT, DRAWS, 1, SIZE, SIZE)
    return [
        {
            "a_ref": a[n, None].float().tolist(),
            "u_ref": u[n, None].float().tolist(),
            "posterior_samples_a": draws[n].float().tolist(),
            "posterior_weights": rng.random(DRAWS).tolist(),
            "metadata": {"sensor_coords": np.argwhere(rng.permutation(SIZE**2).reshape(SIZE, SIZE) < SENSORS).tolist()},
        }
        for n in range(COUNT)
    ]


def save_split(folder: Path, rows: list[dict[str, Any]]) -> None:
    """As `datasets` does: Arrow's stream format, in files that state.json names."""
    folder.mkdir(parents=True)
    names = []
    for number, row in enumerate(rows):
        names.append({"filename": f"data-{number:05d}-of-{len(rows):05d}.arrow"})
        table = pa.Table.from_pylist([row])
        with pa.OSFile(str(folder / names[-1]["filename"]), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
    (folder / "state.json").write_text(json.dumps({"_data_files": names, "_format_type": None}))
    (folder / "dataset_info.json").write_text("{}")


def save(root: Path, rows: list[dict[str, Any]], name: str = "Poisson_Multimode") -> Path:
    """A release: two cases for validation and one for test, listed the other way round."""
    folder = root / "PosteriorDataset_hf" / name
    save_split(folder / "validation", rows[:2])
    save_split(folder / "test", rows[2:])
    (folder / "dataset_dict.json").write_text('{"splits": ["test", "validation"]}')
    return root


def imported(folder: Path, output: Path, *more: str, pde: str = "poisson") -> int:
    parameters = RANGES if pde == "poisson" else []
    return main(["import", "--format", "posteriorbench", "--pde", pde, *parameters, "--output", str(output), *more, str(folder)])


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Any]], Path]:
    torch.set_num_threads(1)
    rows, root = made_cases(), tmp_path_factory.mktemp("release")
    assert imported(save(root, rows), root / "cases.h5") == 0
    return rows, root / "cases.h5"


@pytest.fixture(scope="module")
def study(cases: tuple[list[dict[str, Any]], Path], tmp_path_factory: pytest.TempPathFactory) -> Study:
    path = cases[1]
    made = Study.load(
        {
            "study": "bench",
            "device": "cpu",
            "problems": {"poisson": {"pde": "poisson", "alpha": [1.5, 3.0], "tau": [2.0, 4.0]}},
            "data": {"resolution": SIZE, "train": 8, "validation": 2, "test": 2, "files": {"poisson": {"test": str(path)}}},
            "fractions": [1.0],
            "observations": {
                "theirs": {"kind": "listed", "file": str(path.with_name("cases-sensors.csv")), "assumed_noise": 0.1}
            },
            "runs": {"exact": {"samples": 4}},
            "references": {"files": {"poisson": {"theirs": str(path.with_name("cases-references.h5"))}}},
        }
    )
    made._folder = tmp_path_factory.mktemp("bench") / "results" / made.study
    for split in ("train", "validation", "test"):
        generate.run(made, "poisson", split)
    reference.run(made, "poisson", "theirs")
    sample.run(made, *RUN)
    tables.run(made)
    return made


RUN = ("poisson", "theirs", "exact", "100")


def test_cases_become_pairs_of_our_equation_sensors_and_weighted_references(cases):
    rows, path = cases
    pairs, references = read_pairs(path), read_references(path.with_name("cases-references.h5"))
    sensors = pd.read_csv(path.with_name("cases-sensors.csv"))
    assert list(sensors.columns) == ["field", "i", "j"]
    for n, row in enumerate(rows):
        assert np.array_equal(pairs.coefficient[n], np.float32(row["a_ref"][0]))
        assert np.array_equal(pairs.solution[n], -np.float32(row["u_ref"][0]))
        assert sensors[sensors["field"] == n][["i", "j"]].to_numpy().tolist() == row["metadata"]["sensor_coords"]
        draws, weight = np.array(row["posterior_samples_a"])[:, 0], np.array(row["posterior_weights"])
        assert np.allclose(references.coefficient[n], draws) and np.allclose(references.weight[n], weight / weight.sum())
        assert np.allclose(references.mean[n], np.average(draws, axis=0, weights=weight), atol=1e-6)
        assert references.attributes["ess"][n] == pytest.approx(weight.sum() ** 2 / (weight**2).sum())


def test_a_part_of_the_cases_and_the_same_import_again(cases, tmp_path, caplog):
    rows, path = cases
    caplog.set_level("INFO")
    for _ in range(2):
        assert imported(path.parent, tmp_path / "part.h5", "--start", "1", "--count", "1") == 0
    assert caplog.text.count("is kept") == 2
    listed = (tmp_path / "part-sensors.csv").read_text()
    (tmp_path / "part-sensors.csv").unlink()
    assert imported(path.parent, tmp_path / "part.h5", "--start", "1", "--count", "1") == 0
    assert (tmp_path / "part-sensors.csv").read_text() == listed
    for wrong in (["--start", "3"], ["--start", "-1"], ["--start", "2", "--count", "2"], ["--count", "0"]):
        assert imported(path.parent, tmp_path / "none.h5", *wrong) == 2
    assert not list(tmp_path.glob("none*"))
    assert np.array_equal(read_pairs(tmp_path / "part.h5").coefficient[0], np.float32(rows[1]["a_ref"][0]))
    assert read_references(tmp_path / "part-references.h5").coefficient.shape == (1, DRAWS, SIZE, SIZE)


def test_a_study_observes_what_the_cases_list_and_is_held_against_their_weighted_draws(study, cases):
    samples, references = read_samples(samples_path(study, *RUN)), read_references(reference_path(study, "poisson", "theirs"))
    assert (references.attributes["kind"], references.attributes["likelihood"]) == ("imported", "mean-absolute")
    for n, row in enumerate(cases[0][:2]):
        assert np.argwhere(samples.mask[n]).tolist() == row["metadata"]["sensor_coords"]
        assert np.array_equal(samples.observation[n][samples.mask[n]], -np.float32(row["u_ref"][0])[samples.mask[n]])
    unit = references.attributes["coefficient_std"]
    known = [distances(samples.coefficient[n], references.coefficient[n], references.weight[n], unit) for n in range(2)]
    table = pd.read_csv(study.folder / "tables" / "posterior.csv").set_index("run")
    for name in METRICS:
        assert table[name]["exact"] == pytest.approx(np.mean([getattr(part, name) for part in known]), rel=1e-6)
    assert set(table.index) == {"exact", "floor"} and (table["n_fields"] == 2).all()


def test_exported_files_are_what_the_benchmark_reads(study, tmp_path):
    export.run(study, *RUN, "posteriorbench", tmp_path)
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.h5")) == [
        "poisson_1/generated.h5",
        "poisson_2/generated.h5",
    ]
    with h5py.File(tmp_path / "poisson_2" / "generated.h5") as file:
        assert np.array_equal(file["f"], read_samples(samples_path(study, *RUN)).coefficient[1])
        assert file["f"].dtype == np.float32 and np.allclose(file["w"], 1 / 4)
        told = dict(file.attrs)
    assert told["schema_version"] == "posteriorbench.generated.v1" and json.loads(told["target_fields"]) == ["f"]
    assert {key: told[key] for key in ("case_id", "dataset", "method", "target_field", "observed_field", "seed")} == {
        **{"case_id": "poisson_2", "dataset": "poisson", "method": "exact"},
        **{"target_field": "f", "observed_field": "phi", "seed": 0},
    }
    assert {"checkpoint", "profile"} <= set(told)
    with pytest.raises(InputError, match=r"poisson/theirs/exact-7 is not in the study; accepted: poisson/theirs/exact-100"):
        export.run(study, *RUN[:3], "7", "posteriorbench", tmp_path)


def test_an_export_does_not_mix_with_cases_of_another(study, tmp_path):
    output = tmp_path / "cases"
    export.run(study, *RUN, "posteriorbench", output)
    export.run(study, *RUN, "posteriorbench", output)  # the same cases again
    other = (output / "poisson_2").rename(tmp_path / "other")
    for number, others in (
        (9, "poisson_9"),
        (11, "poisson_9, poisson_11"),
        (10, "poisson_9, poisson_10, poisson_11"),
        (12, "poisson_9, poisson_10, poisson_11 and 1 more"),
        (13, "poisson_9, poisson_10, poisson_11 and 2 more"),
    ):
        shutil.copytree(other, output / f"poisson_{number}")
        with pytest.raises(InputError, match=rf"that this run does not write \({others}\); accepted: an empty folder"):
            export.run(study, *RUN, "posteriorbench", output)
    assert not (output / "poisson_2").exists()


def other_column(rows):
    for row in rows:
        row["posterior_samples"] = row.pop("posterior_samples_a")


def two_channels(rows):
    for row in rows:
        row["a_ref"] = row["a_ref"] * 2


def negative_weight(rows):
    rows[1]["posterior_weights"][0] = -1.0


def fewer_sensors(rows):
    rows[1]["metadata"]["sensor_coords"] = rows[1]["metadata"]["sensor_coords"][1:]


def no_sensors(rows):
    for row in rows:
        row["metadata"] = {"name": "x"}


def sensor_outside(rows):
    rows[1]["metadata"]["sensor_coords"][0] = [SIZE, 0]


def words_for_weights(rows):
    for row in rows:
        row["posterior_weights"] = ["one"] * DRAWS


def text_in_one_file(rows):
    rows[2]["posterior_weights"] = ["one"] * DRAWS


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_column, r"lacks posterior_samples_a; it holds .* another task, or another version"),
        (two_channels, r"a_ref of shape \(2, 16, 16\); accepted: \[S, S\] or \[1, S, S\]"),
        (negative_weight, r"weights that cannot be; accepted: finite draws, weights of 0 or more"),
        (fewer_sensors, r"sensor_coords of shape .*; accepted: \[m, 2\], the same m in all cases"),
        (no_sensors, r"no array in sensor_coords"),
        (sensor_outside, r"sensor_coords that are no nodes; accepted: rows and columns from 0, of \(16, 16\) nodes"),
        (words_for_weights, r"case 0: no array in posterior_weights; accepted: lists of numbers"),
        (text_in_one_file, r"files of different versions"),
    ],
)
def test_cases_of_another_version_are_one_error(change, message, tmp_path, capsys):
    rows = made_cases()
    change(rows)
    assert imported(save(tmp_path, rows), tmp_path / "out.h5") == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert told.startswith("error: ")
    assert re.search(message, told), told
    assert not list(tmp_path.glob("out*"))


def test_cases_of_another_task_are_one_error(tmp_path, capsys):
    save(tmp_path / "named", made_cases("darcy"), "Darcy_Multimode")
    save(tmp_path / "renamed", made_cases("darcy"))
    assert imported(tmp_path / "named" / "PosteriorDataset_hf" / "Darcy_Multimode", tmp_path / "x.h5") == 2
    assert "holds cases of another task; accepted: those of Poisson_Multimode" in capsys.readouterr().err
    assert imported(tmp_path / "named", tmp_path / "x.h5") == 2
    assert "no cases of posteriorbench; accepted: a folder with dataset_dict.json" in capsys.readouterr().err
    assert imported(tmp_path / "renamed", tmp_path / "x.h5") == 2
    assert "its solutions are none of ∇²u = a" in capsys.readouterr().err
    assert imported(tmp_path / "named", tmp_path / "x.h5", pde="helmholtz") == 2
    assert "accepted: poisson, darcy" in capsys.readouterr().err
    assert not (tmp_path / "x.h5").exists()
    assert imported(tmp_path / "named", tmp_path / "x.h5", pde="darcy") == 0


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda split: (split / "state.json").write_text('{"_data_files": [{"filename": "../x.arrow"}]}'), "no list _data_files"),
        (
            lambda split: (split / "data-00000-of-00001.arrow").write_bytes(b"ARROW1 and so on"),
            "no file of Arrow's stream format",
        ),
        (lambda split: (split / "data-00000-of-00001.arrow").unlink(), "no file of Arrow's stream format"),
    ],
)
def test_a_damaged_release_is_one_error(damage, message, tmp_path, capsys):
    save(tmp_path, made_cases())
    damage(tmp_path / "PosteriorDataset_hf" / "Poisson_Multimode" / "test")
    assert imported(tmp_path, tmp_path / "out.h5") == 2
    assert message in capsys.readouterr().err


def test_references_of_other_fields_and_files_that_list_no_nodes_are_refused(study, cases, tmp_path):
    path = cases[1]
    assert imported(path.parent, tmp_path / "other.h5", "--count", "2") == 0
    given = study.resolved()
    given["references"]["files"]["poisson"]["theirs"] = str(tmp_path / "other-references.h5")
    with pytest.raises(InputError, match=r"references.files.poisson.theirs: .* is not of the test split"):
        Study.load(given)
    given["references"]["files"] = {"poisson": {"sparse": str(tmp_path / "other-references.h5")}}
    with pytest.raises(InputError, match=r"references.files.poisson: sparse; accepted: theirs"):
        Study.load(given)
    for text, message in (
        ("field,x,y\n0,1,1\n", "columns field, x, y; accepted: field, i, j"),
        ("field,i,j\n0,1,1\n0,2,x\n", "'0,2,x' in row 3; accepted: three whole numbers"),
        ("field,i,j\n0,1\n0,2\n", "'0,1' in row 2; accepted: three whole numbers"),
        ("field,i,j\n0,1,1,2\n0,2,1,2\n", "'0,1,1,2' in row 2; accepted: three whole numbers"),
        (f"field,i,j\n0,1,{10**30}\n", "in row 2; accepted: three whole numbers"),
        (f"field,i,j\n{'x' * 200_000}\n", "cannot be read as a table: field larger than"),
        ("field,i,j\n0,1,1\n0,2,2\n1,1,1\n", "accepted: 0, 1, ..., as many each"),
        ("field,i,j\n0,1,1\n0,16,2\n", "not on the grid"),
        ("field,i,j\n0,1,1\n0,1,1\n", "twice in a field"),
    ):
        (tmp_path / "nodes.csv").write_text(text)
        given = {**study.resolved(), "references": None}
        given["observations"] = {"theirs": {"kind": "listed", "file": str(tmp_path / "nodes.csv")}}
        with pytest.raises(InputError, match=f"observations.theirs: .*{message}"):
            Study.load(given)


def test_training_fields_that_are_generated_may_be_augmented_beside_cases_from_a_file(study, cases):
    given = {**study.resolved(), "runs": {"ddis-gn": {}}, "prior": {"augmentation": 0.5}}
    Study.load(given)
    assert generated(study, "poisson") == ["train", "validation"]
    given["data"]["files"]["poisson"] = {"train": str(cases[1])}
    given["data"]["train"] = COUNT
    with pytest.raises(InputError, match=r"prior.augmentation 0.5: the coefficients of problem 'poisson' come from .*cases.h5"):
        Study.load(given)


def test_the_content_of_a_list_is_an_input(study, cases, tmp_path):
    moved = cases[1].with_name("cases-sensors.csv").read_text()
    (tmp_path / "nodes.csv").write_text(moved)
    given = study.resolved()
    given["observations"]["theirs"]["file"] = str(tmp_path / "nodes.csv")
    before = Study.load(given)
    lines = moved.splitlines()
    lines[1], lines[2] = lines[2], lines[1]
    (tmp_path / "nodes.csv").write_text("\n".join(lines))
    case = dict(zip(("problem", "observation", "run", "percent"), RUN, strict=True))
    assert Study.load(given).digest("sample", **case) != before.digest("sample", **case)
    assert read_attributes(cases[1], PAIRS)["source"]["kind"] == "imported"
