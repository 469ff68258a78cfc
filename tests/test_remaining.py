"""Hours that a study still takes: from the records of its jobs, and from the estimate that `ddis cost` keeps."""

import json

import pytest
from recorded import TINY, make

from ddis.config import Study
from ddis.files import write_json
from ddis.stages import records
from ddis.stages.remaining import COST, hours_left
from ddis.steps import Step, record_name
from ddis.yaml_text import read_yaml

PRIOR = Step("train", {"problem": "poisson", "model": "prior"})
COMMAND, TARGETS = "`ddis cost --config tiny.yaml`", ["all", "tune"]


@pytest.fixture
def study(tmp_path, monkeypatch) -> Study:
    monkeypatch.chdir(tmp_path)
    return Study.load(TINY)


def estimate(study: Study, **hours: float) -> None:
    """cost.json with the hours of every job by its stage."""
    wanted = [*records.steps(study), *records.asked_steps(study)]
    jobs = {s.label: (s.digest(study), 3600 * hours[s.stage]) for s in wanted if s.stage in hours}
    write_json(study.folder / COST, {"device": "a machine", "jobs": jobs})


def everything(study: Study) -> dict[str, str]:
    return {s.label: "" for s in [*records.steps(study), *records.asked_steps(study)] if s.stage != "study"}


def test_without_an_estimate_it_is_said_how_to_get_one(study):
    told = hours_left(study, everything(study), TARGETS, COMMAND)
    assert told == f"Hours left: not known, 19 of 19 jobs have no estimate, which {COMMAND} makes."
    assert (
        hours_left(study, {"tables": "", "report": ""}, TARGETS, COMMAND) is None
        and hours_left(study, {}, TARGETS, COMMAND) is None
    )


def test_hours_are_those_of_the_targets(study):
    estimate(study, generate=1, train=0.5, sample=0.25, tune=2, check=3)
    # 3 splits, 5 networks, 7 cases, 4 curves, 3 checks
    targets_and_hours = (
        (["all"], 7.2),
        (["tune"], 14),
        (["all", "tune"], 15),
        (["paper"], 7.2),
        (["check"], 14),
        (["check", "all"], 16),
    )
    for targets, hours in targets_and_hours:
        told = hours_left(study, everything(study), targets, COMMAND)
        assert told == f"Hours left, one job after another: {hours}; estimates are of a machine."


def test_what_a_job_took_counts_more_than_an_estimate(study):
    estimate(study, train=5)
    make(study, PRIOR)
    path = study.folder / record_name(PRIOR)
    times = {"started": "2026-01-01T10:00:00+00:00", "ended": "2026-01-01T12:00:00+00:00"}
    path.write_text(json.dumps(json.loads(path.read_text()) | times))
    assert " 2;" in str(hours_left(study, {PRIOR.label: "a reason"}, ["all"], COMMAND))


def test_a_resumed_training_counts_with_all_its_sessions(study):
    """Two hours in its last session, five in all, by its history; of other stages the record is all there is."""
    make(study, PRIOR)
    path = study.folder / record_name(PRIOR)
    times = {"started": "2026-01-01T10:00:00+00:00", "ended": "2026-01-01T12:00:00+00:00"}
    path.write_text(json.dumps(json.loads(path.read_text()) | times))
    history = study.folder / "models" / "poisson" / "prior" / "history.csv"
    for rows, hours in (("6,3600\n12,18000\n", 5), ("6,60\n", 2), ("", 2), ("6,never\n", 2)):
        history.write_text("step,seconds\n" + rows)
        told = hours_left(study, {PRIOR.label: "a reason"}, ["all"], COMMAND)
        assert told == f"Hours left, one job after another: {hours}."


def test_an_estimate_for_other_settings_does_not_count(study):
    estimate(study, train=5)
    content = read_yaml(TINY)
    content["prior"]["training"]["steps"] = 24
    told = hours_left(Study.load(content), {PRIOR.label: "", "train/poisson/operator-100": ""}, ["all"], COMMAND)
    missing = f"1 of 2 jobs have no estimate, which {COMMAND} makes"
    assert told == f"Hours left, one job after another: 5; {missing}; estimates are of a machine."


@pytest.mark.parametrize("text", ["", "[]", '{"device": 1}', '{"device": "x", "jobs": {"a": 1}}', "{"])
def test_a_damaged_estimate_is_none(study, text):
    study.folder.mkdir(parents=True)
    (study.folder / COST).write_text(text)
    assert "not known" in str(hours_left(study, everything(study), TARGETS, COMMAND))
