"""Networks that a study trains on fewer nodes than it samples on: what they see, what is told of them, and what is refused."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from stages import run_all

from ddis.config import Study
from ddis.data.store import read_pairs, read_samples
from ddis.errors import InputError
from ddis.grid import Grid, square
from ddis.stages import train
from ddis.stages.experiments import sections
from ddis.stages.layout import data_path, samples_path
from ddis.trained import load_network
from ddis.training.coarse import restricted
from ddis.training.sections import TrainedSettings

TINY = yaml.safe_load((Path(__file__).parent / "tiny.yaml").read_text())
COARSE = {"resolution": 8}
CPU = torch.device("cpu")


def configuration(**changes: Any) -> dict[str, Any]:
    """The tiny study on 16 x 16 nodes with networks trained on 8 x 8, three of which its noise spans."""
    sections = {key: TINY[key] | COARSE for key in ("prior", "joint", "operator")}
    sections["joint"] = sections["flow"] = sections["prior"]
    noise = {"kernel": "exponential", "length": 0.25, "diagonal": True}
    runs = TINY["runs"] | {"eci": {"steps": 3}}
    return TINY | sections | {"study": "coarse", "fractions": [1.0], "noise": noise, "runs": runs} | changes


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Iterator[Study]:
    """That study, made, in the working directory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("coarse"))
        patch.setenv("DDIS_TRACKING", "off")
        made = Study.load(configuration())
        run_all(made)
        yield made


def test_samples_have_all_nodes(study):
    for case in study.cases():
        samples = read_samples(samples_path(study, **vars(case)))
        assert samples.coefficient.shape[2:] == samples.solution_true.shape[1:] == (16, 16) and not samples.failed.any()


def test_tables_say_which_networks_saw_fewer_nodes(study):
    found = (study.folder / "tables" / "errors.md").read_text(encoding="utf-8")
    assert "Networks trained on fewer nodes per side: prior 8, operator 8, joint 8, flow 8." in found


def test_the_papers_page_says_it_too(study):
    settings = {entry.run: dict(entry.settings) for _, entries in sections(study) for entry in entries}
    assert settings["ddis"]["prior.resolution"] == settings["ddis"]["operator.resolution"] == "8"
    assert settings["fundps"]["joint.resolution"] == "8" and "joint.resolution" not in settings["ddis"]


def test_an_operator_is_trained_on_means_of_blocks_and_judged_on_all_nodes(study):
    """By its loss on means of 2 x 2 nodes of the validation pairs, and its error on the pairs as they are, computed here."""
    trained = load_network(study, "poisson", "operator-100", CPU)
    pairs = read_pairs(data_path(study, "poisson", "validation"))
    whole = [torch.from_numpy(field) for field in (pairs.coefficient, pairs.solution)]
    errors = []
    for a, u in (whole, [field.reshape(-1, 8, 2, 8, 2).mean(dim=(2, 4)) for field in whole]):
        target = trained.solution.normalise(u)
        difference = trained.solution.normalise(trained.network(a)) - target
        errors.append(float((difference.flatten(1).norm(dim=1) / target.flatten(1).norm(dim=1)).mean()))
    assert trained.information["relative_error"] == pytest.approx(errors[0], rel=1e-4)
    assert trained.information["validation_loss"] == pytest.approx(errors[1], rel=1e-4)
    assert abs(errors[0] / errors[1] - 1) > 0.001  # the two are told apart


def test_what_is_known_of_the_coefficient_is_of_all_nodes(study):
    trained = load_network(study, "poisson", "prior", CPU)
    fields = torch.from_numpy(read_pairs(data_path(study, "poisson", "train")).coefficient)
    modes = trained.problem.coefficient_space(16).grid.basis.forward(trained.coefficient.normalise(fields).double())
    torch.testing.assert_close(trained.spectrum, modes.var(dim=0), rtol=1e-5, atol=1e-12)


def test_a_mode_keeps_its_place_and_the_factor_in_closed_form():
    fine, coarse, k = square(64), square(16), torch.tensor([3, 7], dtype=torch.float64)
    modes, expected = torch.zeros(64, 64, dtype=torch.float64), torch.zeros(16, 16, dtype=torch.float64)
    modes[3, 7] = 1.0
    factor = torch.sin(torch.pi * k * 4 / 128) / (4 * torch.sin(torch.pi * k / 128))
    expected[3, 7] = factor.prod() / 4  # an orthonormal basis: the root of the 16 nodes that become one
    found = coarse.basis.forward(restricted(fine.basis.inverse(modes), coarse))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_periodic_axes_keep_nodes_and_bounded_ones_means():
    grid = Grid((4, 2), (True, False), (1.0, 1.0))
    fields = torch.arange(64.0).reshape(2, 8, 4)
    expected = torch.stack([(field[::2, ::2] + field[::2, 1::2]) / 2 for field in fields])
    assert torch.equal(restricted(fields, grid), expected)
    assert restricted(fields, Grid((8, 4), (True, False), (1.0, 1.0))) is fields


def test_a_resolution_makes_another_network_of_the_same_data():
    """Nothing that was recorded before the setting was there names it."""
    plain = Study.load({**configuration(), **{key: TINY[key] for key in ("prior", "operator")}})
    coarse = Study.load(configuration())
    for model in ("prior", "operator-100"):
        known, changed = (study.inputs("train", problem="poisson", model=model) for study in (plain, coarse))
        assert changed["settings"].pop("resolution") == 8 and "resolution" not in known["settings"]
        assert known == changed
        assert plain.digest("train", problem="poisson", model=model) != coarse.digest("train", problem="poisson", model=model)
    assert all("resolution" not in section for section in (plain.resolved()["prior"], plain.resolved()["operator"]))
    assert "resolution" in TrainedSettings.model_fields


def test_the_resolution_of_the_fields_is_that_of_no_other_network():
    plain = Study.load({**configuration(), **{key: TINY[key] for key in ("prior", "operator")}})
    same = Study.load({**configuration(), **{key: TINY[key] | {"resolution": 16} for key in ("prior", "operator")}})
    for model in ("prior", "operator-100"):
        assert plain.inputs("train", problem="poisson", model=model) == same.inputs("train", problem="poisson", model=model)
        assert plain.digest("train", problem="poisson", model=model) == same.digest("train", problem="poisson", model=model)


def test_a_periodic_domain_has_no_padding_that_could_be_another():
    changes = {"problems": {"flow": {"pde": "navier-stokes"}}, "runs": {"es-mda": {}}, "noise": {}, "tuning": {}}
    sizes = {"data": TINY["data"] | {"resolution": 24}, "operator": TINY["operator"] | {"resolution": 12}}
    assert Study.load(configuration(**changes, **sizes)).operator.resolution == 12


def test_another_operator_takes_the_resolution_of_the_first_or_null():
    study = Study.load(configuration(operators={"same": {}, "whole": {"resolution": None}}))
    assert [study.operators[name].resolution for name in ("same", "whole")] == [8, None]


REFUSED = [
    ({"prior": COARSE | {"resolution": 6}}, r"prior\.resolution 6: does not divide data\.resolution, 16; accepted: 4, 8, 16$"),
    ({"prior": COARSE | {"resolution": 32}}, r"prior\.resolution 32: does not divide data\.resolution, 16; accepted: 4, 8, 16$"),
    ({"prior": COARSE | {"resolution": 2}}, r"prior\.resolution: .*greater than or equal to 4 \(got 2\)"),
    ({"operator": COARSE}, r"operator\.network\.modes 16: 8 nodes do not carry them all; accepted: up to 8$"),
    ({"prior": COARSE | {"backbone": {"name": "uno"}}}, r"prior\.backbone\.modes 16: 8 nodes do not carry them all"),
    (
        {"data": TINY["data"] | {"resolution": 24}, "operator": TINY["operator"] | {"resolution": 12}, "runs": {"tikhonov": {}}},
        r"operator\.network\.padding 0\.125: 2 of 12 nodes, 3 of 24; accepted: 0, or multiples of 1/12$",
    ),
    (
        {"operator": TINY["operator"] | COARSE | {"physics": {"pde": 1}}},
        r"operator\.resolution 8: the equation is that of all nodes; accepted: 16, or no operator\.physics",
    ),
    ({"noise": {"kernel": "white"}}, r"prior\.resolution 8: white noise is another one on other nodes; accepted: 16"),
    ({"runs": {"diffusionpde": {}}}, r"joint\.resolution 8: white noise is another one .*; accepted: 16 for run 'diffusionpde'"),
    (
        {"problems": {"corner": {"pde": "poisson-l-shape"}}, "runs": {"ddis-gn": {}}},
        r"prior\.resolution 8: problem 'corner': its domain is a part of a rectangle.*; accepted: 16, or runs\.ddis-gn\.problems",
    ),
    (
        {"problems": {"burgers": {"pde": "burgers"}}, "runs": {"ddis-gn": {}}},
        r"operator\.resolution 8: problem 'burgers': its fields have 16 x 17 nodes, which are not 2 times 8 x 9; accepted: 16",
    ),
    (
        {"problems": {"burgers": {"pde": "burgers"}}, "runs": {"eci": {}}},
        r"runs\.eci: problem 'burgers': a joint prior needs .* have 16 and 16 x 17; accepted: runs\.eci\.problems without it",
    ),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_what_cannot_be_is_refused_before_any_work(changes, message):
    with pytest.raises(InputError, match=message):
        Study.load(configuration(**changes))


BY_HAND = [
    ("poisson", "joint-white-100", r"joint\.resolution 8: white noise is another one on other nodes; accepted: 16$"),
    ("burgers", "operator-100", r"operator\.resolution 8: problem 'burgers': its fields have 16 x 17 nodes, .*; accepted: 16$"),
    ("darcy", "joint-100", r"^problem 'darcy' is not in the study; accepted: poisson, burgers$"),
    ("burgers", "joint-100", r"joint-100: problem 'burgers': a joint prior needs .* nodes; here they have 16 and 16 x 17$"),
]


@pytest.mark.parametrize(("problem", "model", "message"), BY_HAND)
def test_a_network_that_no_run_needs_is_refused_where_it_is_trained_by_hand(tmp_path, monkeypatch, problem, model, message):
    monkeypatch.chdir(tmp_path)
    problems = {"poisson": {"pde": "poisson"}, "burgers": {"pde": "burgers"}}
    study = Study.load(configuration(problems=problems, runs={"ddis-gn": {"problems": ["poisson"]}}, tuning={}))
    with pytest.raises(InputError, match=message):
        train.run(study, problem, model)
    assert not list(tmp_path.iterdir())
