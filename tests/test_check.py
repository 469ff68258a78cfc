"""`ddis check`: what it says of exact samples and of a factor that is too few fields' worth, and what `ddis solve` says of it."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import ddis
from ddis.config import Study
from ddis.errors import InputError
from ddis.evaluation import certificate, sbc
from ddis.inputs import CHECKED
from ddis.stages import check, generate, solve
from ddis.stages.layout import check_path
from ddis.stages.records import why_unchecked
from ddis.stages.study import run as write_configuration

SETTINGS = {
    "study": "checked",
    "device": "cpu",
    "problems": {"poisson": {"pde": "poisson"}},
    "data": {"resolution": 16, "train": 200, "validation": 80, "test": 2},
    "fractions": [1.0],
    "observations": {"sparse": {"count": 20, "noise": 0.05}, "dense": {"count": 60, "noise": 0.05}},
    "runs": {"exact": {"samples": 8}, "few": {"method": "exact", "samples": 2}},
}
CASE = {"problem": "poisson", "observation": "sparse", "run": "exact", "percent": "100"}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Study]:
    """With the check of `exact`, in the working directory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("check"))
        patch.setenv("DDIS_TRACKING", "off")
        made = Study.load(SETTINGS)
        write_configuration(made)
        for split in ("train", "validation"):
            generate.run(made, "poisson", split)
        check.run(made, **CASE)
        yield made


def stored(study: Study) -> dict:
    return json.loads(check_path(study, **CASE).read_text())


def test_exact_samples_pass_on_held_out_fields(study):
    """64 fields, seed 0; nodes of a field are correlated: coverage per field varies by about 5 %, its mean by 0.6 %."""
    found = stored(study)
    assert found["n_fields"] == CHECKED == 64 and found["n_samples"] == 8 and found["verdict"] == sbc.SOUND
    assert found["coverage90"] == pytest.approx(0.9, abs=0.03) and 1.0 < found["factor"] < 1.6
    assert found["factor"] == pytest.approx(np.sort(found["scores"])[58], rel=1e-5)  # the 59th: 65 x 0.9 is 58.5
    assert check_path(study, **CASE).stat().st_size < 20_000


def test_the_table_and_the_line_say_the_same(study, capsys):
    found = stored(study)
    text, line = certificate.to_markdown(found), certificate.line(found)
    assert f"| factor for 90 % of the nodes in 90 % of the fields | {found['factor']:.3g} |" in text
    assert f"times {found['factor']:.3g} they hold 90 % of them or more in 90 % of such fields" in line
    assert "check on 64 held-out fields, 8 samples each (sparse, 20 values, noise 0.05): no fault found" in line
    none = certificate.line(found | {"n_fields": 5, "factor": None})
    assert none.endswith("there is no factor for a guarantee (9 fields or more are needed)")


def test_solve_says_what_belongs_to_its_answer(study):
    model, rows = study.folder / "models" / "poisson", np.array([[0.3, 0.4, 1e-4], [0.6, 0.7, 2e-4]])
    answer = ddis.solve(model, rows, percent=100, method="exact", samples=4)
    assert answer.attributes["checks"] == [certificate.line(stored(study))]
    assert "checks" not in ddis.solve(model, rows, percent=100, method="few", samples=4).attributes
    changed = Study.load({**SETTINGS, "runs": {"exact": {"samples": 9}}})
    [line] = check.lines_of(changed, "poisson", "exact", "100")
    assert line.endswith("exact-100.json is of other settings; run `ddis check` again")


@pytest.mark.parametrize("content", ["{}", "[]", '{"configuration": 3, "factor": "x"', "\0"])
def test_a_damaged_check_is_one_error_before_any_work(study, content, monkeypatch, tmp_path):
    path = tmp_path / "exact-100.json"
    path.write_text(content)
    monkeypatch.setattr(solve, "parts_of", None)
    monkeypatch.setattr(check, "check_path", lambda *_, **case: path if case == CASE else tmp_path / "none")
    with pytest.raises(InputError, match=r"exact-100\.json is (not of `ddis check` .*; restore it|not JSON|no text file)"):
        ddis.solve(study.folder / "models" / "poisson", np.array([[0.3, 0.4, 1e-4]]), percent=100, method="exact", samples=4)


def test_what_cannot_be_checked_is_refused_before_any_work(study):
    with pytest.raises(InputError, match=r"runs\.few\.samples 2; accepted for `ddis check`: 4 or more"):
        check.run(study, **{**CASE, "run": "few"})
    small = Study.load({**SETTINGS, "data": {**SETTINGS["data"], "validation": 1}})
    assert why_unchecked(small, small.cases()[0]) == (
        "percent 100: 1 of 1 validation pairs; accepted for `ddis check`: 2 or more"
    )
    assert not list(Path("results/checked/work").rglob("*.safetensors"))
