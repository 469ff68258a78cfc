"""`ddis cost` on the tiny study: a row for every network and run, parts that add up, nothing run that does not fit."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ddis.cli import main
from ddis.config import Study
from ddis.models.ids import OPERATOR, ModelId
from ddis.sampling.matrix_free import MatrixFreeGain
from ddis.sampling.methods import load_method
from ddis.stages import cost, layout, measure, records
from ddis.stages.remaining import LONG, stored
from ddis.trained import untrained
from ddis.training import physics

TINY = Path(__file__).parent / "tiny.yaml"


@pytest.fixture(scope="module")
def study() -> Study:
    return Study.load(TINY)


@pytest.fixture(scope="module")
def found(study: Study):
    torch.set_num_threads(1)
    return cost.measured(study)


def test_every_network_and_every_run_has_a_row(study, found):
    _, trainings, samplings = found
    assert [str(row.model) for row in trainings] == layout.models(study, "poisson")
    assert [row.case.run for row in samplings] == list(study.runs)
    assert [row.percents for row in samplings] == [("10", "100")] * 3 + [("100",)]


def test_parameters_and_steps_are_those_of_the_study(study, found):
    _, trainings, samplings = found
    by_name = {str(row.model): row for row in trainings}
    assert {name: row.steps for name, row in by_name.items()} == {name: 6 if name == "joint-10" else 12 for name in by_name}
    operator = by_name["operator-100"].cost.network
    assert by_name["operator-100"].cost.parameters == sum(p.numel() for p in operator.parameters())
    assert [row.cost.steps for row in samplings] == [3, 3, 4, 1]


def test_a_training_takes_its_steps_and_a_run_its_batches(found):
    _, trainings, samplings = found
    for row in trainings:
        assert row.seconds == pytest.approx(row.steps * row.cost.step.seconds) and row.seconds > 0
    assert all(row.cost.step.seconds > 0 for row in samplings)  # those that have no operator, too
    ddis = samplings[0]
    # batches of one chain: 3 fields, 3 steps, at two percents
    assert ddis.seconds == pytest.approx(2 * (9 * ddis.cost.step.seconds + ddis.solves), rel=0.1)


def test_memory_grows_with_the_batch(study):
    larger = Study.load({**study.resolved(), "operator": {**study.operator.model_dump(mode="json"), "training": {"batch": 64}}})
    model = next(row.model for row in cost.measured(study)[1] if row.model.part == OPERATOR)
    units = measure.example(study, "poisson")
    small, large = (measure.network_cost(each, "poisson", model, units) for each in (study, larger))
    assert (small.kept, small.fixed) == pytest.approx((large.kept, large.fixed))
    weights = measure.COPIES * 4 * small.parameters + small.fixed
    assert large.step.bytes - weights == pytest.approx(8 * (small.step.bytes - weights))


def test_an_operator_with_a_physics_loss_is_timed_with_it(study, monkeypatch):
    fields = []

    def noted(*arguments: object) -> Tensor:
        fields.append(len(arguments[1]))
        return residual_term(*arguments)

    residual_term = physics.residual_term
    monkeypatch.setattr(physics, "residual_term", noted)
    runs = {"ddis-gn": {"operator": "physics", "fractions": [1.0]}}
    other = Study.load({**study.resolved(), "operators": {"physics": {"physics": {"pde": 0.3}}}, "runs": runs, "tuning": {}})
    row = next(row for row in cost.measured(other)[1] if row.model.part == OPERATOR)
    assert str(row.model) == "operator-physics-100" and max(fields) == 2 * row.cost.step.fields


def test_calls_of_the_solver_that_corrects_a_run_take_their_time(study):
    """3 fields, 2 samples, 5 calls: 30 solves, besides those that samples are scored by."""
    runs = {"ddis-gn": {"operator": "corrected", "samples": 2, "steps": 3, "solver_calls": 5, "fractions": [1.0]}}
    other = Study.load({**study.resolved(), "runs": runs, "tuning": {}})
    (case,), units = other.cases(), measure.example(other, "poisson")
    networks = {
        name: measure.network_cost(other, "poisson", ModelId.parse(name), units) for name in other.models_of("ddis-gn", "100")
    }
    prior, operator = networks["prior"], networks["operator-100"]
    slow = measure.sampler_cost(other, case, prior, operator, replace(units, solve=1000.0))
    assert slow.evaluations.solver == 5 and slow.seconds == pytest.approx(30 * 1000, rel=0.01)


def test_samples_of_a_closed_form_are_timed_together(study, monkeypatch):
    """They share what takes long, a factorisation for each field: hours are not those of one sample times their number."""
    monkeypatch.setattr(measure, "PATIENCE", 0.0)
    other = Study.load({**study.resolved(), "runs": {"exact": {"samples": 50}}, "tuning": {}})
    (case,) = other.cases()
    found = measure.sampler_cost(other, case, None, None, measure.example(other, "poisson"))
    assert found.step.fields == 50


def test_iterations_that_only_an_untrained_operator_takes_are_not_reckoned(study, monkeypatch):
    """Conjugate gradients that never reach their tolerance make 200 products a step; the method says 17 evaluations."""
    monkeypatch.setattr(
        MatrixFreeGain, "_solved", lambda gain, residual, *_: torch.zeros_like(residual[..., :1], dtype=torch.bool)
    )
    runs = {"ddis-gn": {"samples": 2, "steps": 3, "solver": "matrix-free", "fractions": [1.0]}}
    other = Study.load({**study.resolved(), "runs": runs, "tuning": {}})
    (case,), units = other.cases(), measure.example(other, "poisson")
    networks = [measure.network_cost(other, "poisson", ModelId.parse(name), units) for name in ("prior", "operator-100")]
    method = load_method("ddis-gn")(other.run_for(case))
    found = measure.sampler_step(other, case, method, tuple(networks), units, fields=1, chains=2)
    assert found.share == pytest.approx(17 * 4 / 3 / 400, rel=0.02)  # four levels in three steps
    monkeypatch.setattr(measure, "sampler_step", lambda *_: found)
    whole = measure.sampler_cost(other, case, *networks, units)
    assert whole.step.seconds / whole.step.batch == pytest.approx(found.share * found.seconds / whole.step.fields)


def test_what_does_not_fit_is_not_run(study, monkeypatch, capsys):
    def never(*arguments: object) -> None:
        raise AssertionError("a step was run")

    monkeypatch.setattr(measure, "free_memory", lambda device: 1000)
    for name in ("trainer", "sampler_step", "evaluate"):
        monkeypatch.setattr(measure, name, never)
    cost.run(study)
    page = capsys.readouterr().out
    assert page.count("one does not fit into the free memory") == 5
    assert "| in all | not known |" in page


def test_the_command_prints_tables_and_keeps_the_seconds_of_every_job(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(measure, "PATIENCE", 0.01)
    assert main(["cost", "--config", str(TINY)]) == 0
    page = capsys.readouterr().out
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| ")]
    parts = {row[0].strip("| "): float(row[1].strip("| ")) for row in rows[1:5]}
    # printed to two digits
    assert parts["in all"] == pytest.approx(parts["data"] + parts["training"] + parts["sampling"], rel=0.1)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["cost.json"]
    tiny = Study.load(TINY)
    jobs = stored(tiny)[1]
    steps = [*records.steps(tiny), *records.asked_steps(tiny)]
    assert set(jobs) == {step.label for step in steps if step.stage in LONG}
    in_all = sum(seconds for label, (_, seconds) in jobs.items() if not label.startswith(("tune", "check")))
    assert parts["in all"] == pytest.approx(in_all / 3600, rel=0.1)


def test_the_operator_of_the_paper_has_its_published_size():
    study = Study.load(Path(__file__).parents[1] / "config" / "paper.yaml")
    units = measure.example(study, "poisson")
    with torch.device("meta"):
        operator = untrained(study, "poisson", ModelId.parse("operator-100"), units.scales)
    assert sum(p.numel() for p in operator.parameters()) == 34_653_889  # published: 34.65M
