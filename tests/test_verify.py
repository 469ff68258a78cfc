"""Records of stages and `ddis verify`, on a study of the right files with small contents."""

import json
import os
from pathlib import Path

import pytest
import torch
import yaml
from recorded import TINY, fill, finished, make

from ddis.cli import main
from ddis.config import Study
from ddis.errors import InputError
from ddis.files import write_text
from ddis.provenance import file_digest
from ddis.stages import records, verify
from ddis.stages.common import stage
from ddis.steps import Step


@pytest.fixture
def study(tmp_path, monkeypatch) -> Study:
    """The tiny study, finished."""
    monkeypatch.chdir(tmp_path)
    return finished()


def findings(study: Study) -> dict[str, str]:
    """Kind by name."""
    return {f.name: f.kind for f in verify.verify(study, study.folder)[0]}


def test_a_finished_study_is_well_by_name_and_by_folder(study, capsys):
    files = [path for step in records.steps(study) for path in records.outputs_of(study, step)]
    assert len(set(files)) == len(files) > 30
    for given in ("tiny", "results/tiny", str(study.folder.absolute())):
        with pytest.raises(SystemExit) as ended:
            main(["verify", given])
        assert ended.value.code == 0
        assert f"tiny: {len(files)} files" in (line := capsys.readouterr().out) and line.endswith("all is well\n")


def test_every_input_is_the_output_of_an_earlier_step(study):
    """So that what is stale can be seen from the records alone."""
    made: set[Path] = set()
    for step in records.steps(study) + records.tuning_steps(study):
        assert set(records.inputs_of(study, step)) <= made, step
        made |= set(records.outputs_of(study, step))


def test_a_study_that_is_not_there_is_named():
    with pytest.raises(InputError, match=r"no-such: there is neither results/no-such/config\.yaml nor|'no-such'"):
        verify.find_study("no-such")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("data/poisson/train.h5", "is truncated: it has"),
        ("samples/poisson/sparse/ddis-10.h5", "is truncated: it has"),
        ("models/poisson/prior/weights.safetensors", "is truncated: it has"),
        ("models/poisson/prior/model.json", "Expecting"),
        ("figures/training-poisson.png", "not a whole PNG picture"),
        ("data/poisson/card.yaml", "SHA-256"),
        ("tables/errors.csv", "a row has not as many cells"),
    ],
)
def test_a_truncated_file_is_damaged_and_nothing_else_is(study, name, reason):
    path = study.folder / name
    os.truncate(path, path.stat().st_size - 3)
    [finding] = verify.verify(study, study.folder)[0]
    assert (finding.kind, finding.name) == ("damaged", name) and reason in finding.text


def test_one_changed_bit_is_damage(study, capsys):
    path = study.folder / "models" / "poisson" / "operator-10" / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert not verify.run("tiny")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("damaged    models/poisson/operator-10/weights.safetensors: SHA-256 ")
    assert lines[1] == f"repair:  rm {path}; snakemake --cores all --configfile results/tiny/config.yaml"
    assert lines[2].endswith(": 1 damaged") and len(lines) == 3


def test_a_missing_file_is_named_and_needs_no_removal(study, capsys):
    (study.folder / "report.html").unlink()
    assert not verify.run("tiny")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "missing    report.html: it has not been made"
    assert lines[1] == "repair:  snakemake --cores all --configfile results/tiny/config.yaml"


def test_another_configuration_makes_stale_what_depends_on_it(study):
    content = yaml.safe_load(TINY.read_text())
    content["prior"]["training"]["steps"] = 13
    changed = Study.load(content)
    expected = {
        records.name_of(study, path)
        for step in records.steps(study)
        if step.stage != "study" and step.digest(study) != step.digest(changed)
        for path in records.outputs_of(study, step)
    }
    found = findings(changed)
    assert set(found) == expected and set(found.values()) == {"stale"}
    assert {"models/poisson/prior/weights.safetensors", "samples/poisson/sparse/ddis-10.h5", "report.html"} <= expected
    assert not {name for name in expected if "joint" in name or name.startswith("data")}


def test_another_input_makes_stale_what_was_made_from_it(study):
    make(study, Step("train", {"problem": "poisson", "model": "operator-10"}), 99)
    stale = {name for name, kind in findings(study).items() if kind == "stale"}
    samples = {"samples/poisson/sparse/ddis-10.h5", "samples/poisson/sparse/ddis-gn-10.h5"}
    assert samples <= stale and not any("-100" in name or name.startswith("data") for name in stale)


def test_files_without_a_record_or_without_a_stage_are_unknown(study, capsys):
    (study.folder / "provenance" / "tables.json").unlink()
    (study.folder / "samples" / "poisson" / "sparse" / "given-up-10.h5").write_text("")
    tables = {f"tables/{path.name}" for path in (study.folder / "tables").iterdir()}
    assert findings(study) == dict.fromkeys(tables | {"samples/poisson/sparse/given-up-10.h5"}, "unknown")
    assert not verify.run("tiny")
    assert "given-up-10.h5" not in capsys.readouterr().out.partition("repair")[2]


def test_unfinished_work_is_listed_but_no_fault(study, capsys):
    for name in ("work/poisson/prior-0123456789abcdef.safetensors", "work/poisson/sample-sparse-ddis-1-0123/0.safetensors"):
        fill(study.folder / name, 1)
    (study.folder / "data" / "poisson" / ".test.h5.node.12.tmp").write_text("")
    (study.folder / "work" / "running").mkdir()
    (study.folder / "work" / "running" / "tables").write_text("node 1 1")
    assert findings(study) == dict.fromkeys(
        (
            "data/poisson/.test.h5.node.12.tmp",
            "work/poisson/prior-0123456789abcdef.safetensors",
            "work/poisson/sample-sparse-ddis-1-0123",
        ),
        "leftover",
    )
    assert verify.run("tiny")
    assert "rm -r results/tiny/work/poisson/sample-sparse-ddis-1-0123 frees" in capsys.readouterr().out


def test_curves_of_tuning_count_once_they_are_there(study, capsys):
    for step in records.tuning_steps(study):
        make(study, step, 7)
    assert findings(study) == {}
    (study.folder / "tuning" / "poisson" / "sparse" / "ddis-10.csv").unlink()
    assert not verify.run("tiny")
    assert "snakemake --cores all all tune --configfile" in capsys.readouterr().out


def test_a_check_counts_once_it_is_there(study, capsys):
    step = Step("check", {"problem": "poisson", "observation": "sparse", "run": "exact", "percent": "100"})
    assert step in records.check_steps(study)
    make(study, step, 7)
    assert findings(study) == {}
    [path] = records.outputs_of(study, step)
    path.unlink()
    assert findings(study) == {"models/poisson/checks/sparse/exact-100.json": "missing"} and not verify.run("tiny")
    assert "snakemake --cores all all check --configfile" in capsys.readouterr().out


def test_a_folder_that_was_moved_is_still_well(study, tmp_path):
    study.folder.rename(tmp_path / "elsewhere")
    assert verify.verify(study, tmp_path / "elsewhere")[0] == []


def test_a_stage_leaves_a_record_of_what_made_its_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    study = Study.load(TINY)
    for split in ("train", "validation", "test"):
        fill(Path("results/tiny/data/poisson") / f"{split}.h5", 1)
    step = Step("card", {"problem": "poisson"})
    with stage(study, step.stage, **step.arguments):
        for path in records.outputs_of(study, step):
            fill(path, 2)
        assert not (study.folder / records.record_name(step)).exists()
    record = json.loads((study.folder / "provenance" / "card" / "poisson.json").read_text())
    assert record["outputs"] == {f"data/poisson/{n}": file_digest(study.folder / "data" / "poisson" / n)
                                 for n in ("card.md", "card.yaml", "pairs.png")}  # fmt: skip
    assert set(record["inputs"]) == {f"data/poisson/{split}.h5" for split in ("train", "validation", "test")}
    assert record["configuration"] == step.digest(study) and record["study"] == study.resolved()
    assert record["cuda_visible_devices"] == "3" and record["seed"] == 1 and record["versions"]["torch"] == torch.__version__
    assert {"git_commit", "git_dirty", "device", "command", "host", "threads", "started", "ended"} <= set(record)


def test_a_stage_that_fails_leaves_no_record(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RuntimeError), stage(Study.load(TINY), "card", problem="poisson"):
        raise RuntimeError
    assert not (tmp_path / "results" / "tiny" / "provenance").exists()


def test_a_record_tells_of_the_last_of_two_writers(study, monkeypatch):
    """Another process renames its own file into place while the record of the first is written."""
    step, path = Step("report"), study.folder / "report.html"
    write, calls = records.write_json, []

    def slow(*arguments):
        write(*arguments)
        if not calls:
            write_text(path, "of another process")
        calls.append(arguments)

    monkeypatch.setattr(records, "write_json", slow)
    records.write_record(study, step, {}, {})
    record = json.loads((study.folder / "provenance" / "report.json").read_text())
    assert len(calls) == 2 and record["outputs"] == {"report.html": file_digest(path)}


def test_a_stage_does_not_begin_where_it_cannot_write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_text("results/tiny/data/poisson", "a file in the way")
    refused = pytest.raises(InputError, match=r"cannot write results/tiny/data/poisson: (File exists|Not a directory)")
    with refused, stage(Study.load(TINY), "card", problem="poisson"):
        raise AssertionError("the stage began")


def test_a_link_out_of_the_results_is_refused_and_one_of_the_results_is_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "disk" / "tiny").mkdir(parents=True)
    Path("results").symlink_to(tmp_path / "disk")
    records.check_folders(study := Study.load(TINY), Step("tables"))
    (tmp_path / "home").mkdir()
    (tmp_path / "disk" / "tiny" / "figures").symlink_to(tmp_path / "home")
    with pytest.raises(InputError, match=r"results/tiny/figures is a link to .*/home, outside"):
        records.check_folders(study, Step("figures"))
    (tmp_path / "disk" / "out").symlink_to(tmp_path / "home")
    with pytest.raises(InputError, match=r"results/out is a link to"):
        records.check_links(Path("results/out"))
