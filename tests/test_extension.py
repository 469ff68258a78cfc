"""What is from outside runs through the stages by `module:Class` in the configuration: problem, sampler, observation, network."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from outside import Convolutions, Diagonal, OneLayer, Screened

import ddis
from ddis.config import Study
from ddis.data.store import read_pairs, read_samples
from ddis.errors import InputError
from ddis.evaluation.scores import field_scores
from ddis.evaluation.table import error_row
from ddis.grid import Space, square
from ddis.inputs import versions_of
from ddis.models.edm import EDMDenoiser
from ddis.models.normalisation import Normalisation
from ddis.models.operator import NeuralOperator
from ddis.operators.base import Operator
from ddis.sampling.base import Method, RunSettings, State
from ddis.stages import generate, sample, train
from ddis.stages import study as study_stage
from ddis.stages.layout import model_folder, models

CONFIGURATION = {
    "study": "outside",
    "device": "cpu",
    "problems": {"screened": {"pde": "outside:Screened", "screening": 40.0}},
    "data": {"resolution": 12, "train": 64, "validation": 2, "test": 16},
    "fractions": [1.0],
    "observations": {"sparse": {"count": 30, "noise": 0.01}, "diagonal": {"kind": "outside:Diagonal", "noise": 0.01}},
    "runs": {"draw": {"method": "outside:PriorDraw", "samples": 4, "scale": 0.5}, "exact": {"samples": 8}},
}


def test_problem_and_sampler_from_outside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = Study.load(CONFIGURATION)
    for split in ("train", "test"):
        generate.run(study, "screened", split)
    pairs = read_pairs(study.folder / "data" / "screened" / "test.h5")
    problem = study.make_problem("screened")
    residual = problem.residual(*(torch.from_numpy(f).double() for f in (pairs.coefficient, pairs.solution)))
    assert float(residual.abs().max()) < 1e-3  # float32 storage of a solution of order 1e-3, times 4/h² = 484
    for case in study.cases():
        sample.run(study, **vars(case))
    diagonal = read_samples(study.folder / "samples" / "screened" / "diagonal" / "exact-100.h5")
    assert np.array_equal(diagonal.mask, np.broadcast_to(np.eye(12, dtype=bool), diagonal.mask.shape))
    draw, exact = (read_samples(study.folder / "samples" / "screened" / "sparse" / f"{run}-100.h5") for run in ("draw", "exact"))
    expected = 0.5 * float(problem.prior_spectrum(12).mean().sqrt())
    assert draw.coefficient.std() == pytest.approx(expected, rel=0.15)  # 64 draws, some four modes that matter: 3 standard errors
    assert error_row(field_scores(draw), None)["l2_mean"] > 80
    row = error_row(field_scores(exact), None)
    assert row["l2_mean"] < 50 and row["coverage90"] == pytest.approx(0.9, abs=0.06)
    assert np.isfinite(exact.std).all()


def test_parameters_of_an_outside_problem_are_checked():
    wrong = {**CONFIGURATION, "problems": {"screened": {"pde": "outside:Screened", "screeening": 1}}}
    with pytest.raises(InputError, match=r"parameter 'screeening'.*alpha, tau, aspect, screening"):
        Study.load(wrong)
    with pytest.raises(InputError, match=r"pde 'nowhere:Thing' cannot be loaded"):
        Study.load({**CONFIGURATION, "problems": {"screened": {"pde": "nowhere:Thing"}}})


class WithoutGradients(Screened):
    """A problem whose solver is another program."""

    def solve(self, coefficient):
        return torch.from_numpy(super().solve(coefficient.detach()).numpy())


def test_a_solve_without_gradients_is_told_by_methods_that_need_them_and_does_for_others():
    problem = ddis.problem("test_extension:WithoutGradients", resolution=8)
    values = ddis.observe.simulate(ddis.observe.nodes([20, 30]), problem.solve(problem.sample_coefficients([0], 8, 0))[0])
    posterior = ddis.Posterior(problem, ddis.prior.gaussian(problem), None, ddis.observe.nodes([20, 30]), values)
    for method in ("ddis", "ddis-gn", "exact", "tikhonov"):
        with pytest.raises(InputError, match=r"WithoutGradients: its solve has no gradients.*accepted: .* es-mda"):
            posterior.sample(method, samples=2)
    assert np.isfinite(posterior.sample("es-mda", samples=50).samples).all()


class Unfinished(Method[RunSettings]):
    """A method that does not say how it samples."""


class Silent(Unfinished):
    """A method that yields nothing."""

    def sample(self, batch, prepared):
        yield from ()


class Few(Unfinished):
    """A method that yields one sample, however many chains there are."""

    def sample(self, batch, prepared):
        yield State(1, 1, 0.0, batch.mean[None].float())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Unfinished", r"'test_extension:Unfinished' does not define sample"),
        ("Silent", r"Silent: yields no state; accepted: x0 of shape \(3, 8, 8\), one per chain"),
        ("Few", r"Few: yields samples of shape \(1, 8, 8\); accepted: x0 of shape \(3, 8, 8\)"),
    ],
)
def test_a_method_from_outside_that_is_unfinished_is_refused(name, message):
    problem = ddis.problem("poisson", resolution=8)
    posterior = ddis.Posterior(problem, ddis.prior.gaussian(problem), None, ddis.observe.nodes([20]), [0.0])
    with pytest.raises(InputError, match=message):
        posterior.sample(f"test_extension:{name}", samples=3)


class Wrong(Diagonal):
    """An observation that takes the grid for a number."""

    def functionals(self, grid):
        return super().functionals(grid.size)


def test_an_observation_from_outside_that_fails_is_told_in_one_line():
    wrong = {"wrong": [{"count": 3}, {"kind": "test_extension:Wrong"}]}
    message = (
        r"observations\.wrong: kind 'test_extension:Wrong' fails: AttributeError: 'Grid' .*'size' "
        r"\(.*test_extension\.py, line \d+\) \(at resolution 8\)$"
    )
    with pytest.raises(InputError, match=message):
        Study.load({**CONFIGURATION, "observations": wrong, "data": {**CONFIGURATION["data"], "resolution": 8}})


class Shrinking(Convolutions):
    """An architecture whose output has fewer nodes than its input."""

    def build(self, coefficient, solution):
        return torch.nn.Conv2d(coefficient.channels, solution.channels, 3)


SHORT = {"training": {"steps": 4, "batch": 8, "warmup": 1, "validate_every": 2}}
NETWORKS = {
    "study": "networks",
    "device": "cpu",
    "problems": {"poisson": {"pde": "poisson"}},
    "data": {"resolution": 12, "train": 16, "validation": 8, "test": 2},
    "fractions": [1.0],
    "observations": {"sparse": {"count": 20, "noise": 0.01}},
    "prior": {"backbone": {"name": "outside:OneLayer"}, **SHORT},
    "operator": {"network": {"modes": 4, "width": 4, "layers": 1}, **SHORT},
    "operators": {"outside": {"network": {"architecture": "outside:Convolutions", "width": 3}}},
    "runs": {"own": {"method": "ddis-gn", "steps": 2}, "other": {"method": "ddis-gn", "steps": 2, "operator": "outside"}},
}


class Failing(OneLayer):
    """A backbone that cannot be built."""

    def build(self, channels, grid):
        return super().build(channels, grid.size)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (
            {"operators": {"outside": {"network": {"architecture": "test_extension:Shrinking"}}}},
            r"operators\.outside: problem 'poisson': architecture Shrinking: shape \(1, 1, 10, 10\) .*accepted: \(1, 1, 12, 12\)",
        ),
        (
            {"prior": {"backbone": {"name": "test_extension:Failing"}}},
            r"prior: problem 'poisson': name 'test_extension:Failing' fails: AttributeError: .*'size' \(.*, line \d+\)$",
        ),
    ],
)
def test_a_network_from_outside_that_fails_is_refused_before_any_data_is_made(section, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        study_stage.run(Study.load({**NETWORKS, **section}))
    assert not (tmp_path / "results").exists()


def test_networks_that_change_the_nodes_are_refused():
    fields, unit = torch.zeros(2, 8, 8), Normalisation(0.0, 1.0)
    network = NeuralOperator(Shrinking(architecture="test_extension:Shrinking"), (Space(square(8)),) * 2, unit, unit)
    with pytest.raises(InputError, match=r"Shrinking: shape \(2, 1, 6, 6\) from \(2, 1, 8, 8\); accepted: \(2, 1, 8, 8\)"):
        network(fields)
    denoiser = EDMDenoiser(lambda x, c_noise: x[:, :1])
    with pytest.raises(InputError, match=r"backbone: shape \(2, 1, 8, 8\) from \(2, 2, 8, 8\)"):
        denoiser(torch.zeros(2, 2, 8, 8), torch.ones(2))


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """The study with networks from outside, run up to its samples."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("networks"))
        study = Study.load(NETWORKS)
        study._folder = study.folder.absolute()
        for split in ("train", "validation", "test"):
            generate.run(study, "poisson", split)
        for model in models(study, "poisson"):
            train.run(study, "poisson", model)
        for case in study.cases():
            sample.run(study, **vars(case))
        (study.folder / "config.yaml").write_text(json.dumps(study.resolved()))
        yield study


def test_networks_from_outside_are_trained_and_sampled_with(networks):
    assert models(networks, "poisson") == ["prior", "operator-100", "operator-outside-100"]
    drawn = {run: read_samples(networks.folder / "samples" / "poisson" / "sparse" / f"{run}-100.h5") for run in networks.runs}
    assert {run: samples.attributes["operator"] for run, samples in drawn.items()} == {"own": "fno", "other": "outside"}
    assert np.isfinite(drawn["other"].coefficient).all()
    versions = versions_of(networks, "train", problem="poisson", model="operator-outside-100")
    assert len(versions["outside:Convolutions"]) == 16  # of its file
    assert set(versions_of(networks, "train", problem="poisson", model="prior")) == {"train", "denoiser", "outside:OneLayer"}


@pytest.mark.parametrize("model", ["operator-100", "operator-outside-100"])
def test_a_loaded_operator_predicts_as_well_as_its_training_said(networks, model):
    folder = model_folder(networks, "poisson", model)
    pairs = read_pairs(networks.folder / "data" / "poisson" / "validation.h5")
    operator = ddis.operator.load(folder)
    a, u = torch.from_numpy(pairs.coefficient), torch.from_numpy(pairs.solution)
    normalised = operator.solution.normalise(operator(a)), operator.solution.normalise(u)
    error = (normalised[0] - normalised[1]).flatten(1).norm(dim=1) / normalised[1].flatten(1).norm(dim=1)
    assert float(error.mean()) == pytest.approx(json.loads((folder / "model.json").read_text())["relative_error"], rel=1e-5)
    assert operator.error is not None
    finer = ddis.problem("poisson", resolution=16)
    with pytest.raises(InputError, match=r"operator: its coefficient has nodes \(12, 12\), not \(16, 16\)"):
        ddis.Posterior(finer, ddis.prior.gaussian(finer), operator, ddis.observe.nodes([20]), [0.0])


def test_a_loaded_prior_denoises_as_well_as_its_training_said(networks):
    folder = model_folder(networks, "poisson", "prior")
    prior = ddis.prior.load(folder)
    a = torch.from_numpy(read_pairs(networks.folder / "data" / "poisson" / "validation.h5").coefficient)
    x = prior.coefficient.normalise(a)[:, None].float()
    assert torch.allclose(prior.denoise(x, torch.full((8,), 1e-6)), x, atol=1e-4)  # without noise it leaves a field as it is
    modes = networks.make_problem("poisson").coefficient_space(12).grid.basis
    train_fields = torch.from_numpy(read_pairs(networks.folder / "data" / "poisson" / "train.h5").coefficient)
    expected = modes.forward(prior.coefficient.normalise(train_fields).double()).var(dim=0)
    assert torch.allclose(prior.spectrum, expected, rtol=1e-4, atol=1e-8)
    levels = pd.read_csv(folder / "denoising.csv")
    assert prior.excess == dict(zip(levels["sigma"], levels["excess"], strict=True))


def test_networks_go_where_the_samples_are_computed(networks):
    """The device "meta" holds no numbers, and is on every machine."""
    prior = ddis.prior.load(model_folder(networks, "poisson", "prior"))
    operators = [ddis.operator.load(model_folder(networks, "poisson", "operator-100")) for _ in range(2)]
    problem = ddis.problem("poisson", resolution=12)
    corrected = ddis.operator.corrected(operators[1], ddis.operator.solver(problem))
    for operator in (operators[0], corrected):
        with pytest.raises(RuntimeError, match="meta tensors"):  # where it asks for the numbers of an observation
            ddis.Posterior(problem, prior, operator, ddis.observe.nodes([20]), [0.0], device="meta")
    for network in (prior.denoise, *(operator.network for operator in operators)):
        assert {parameter.device.type for parameter in network.parameters()} == {"meta"}


class Recording(Operator):
    """An operator that has no unit of solutions, and keeps the devices that its coefficients were on."""

    def __init__(self):
        self.devices = set()

    def __call__(self, coefficient):
        self.devices.add(coefficient.device.type)
        return torch.arange(float(coefficient.numel())).reshape(coefficient.shape)


def test_an_operator_is_asked_for_its_unit_where_the_samples_are_computed():
    problem, operator = ddis.problem("poisson", resolution=12), Recording()
    with pytest.raises(RuntimeError, match="meta tensors"):  # as above
        ddis.Posterior(problem, ddis.prior.gaussian(problem), operator, ddis.observe.nodes([20]), [0.0], device="meta")
    assert operator.devices == {"meta"}


def test_a_folder_of_another_kind_is_refused(networks, tmp_path):
    with pytest.raises(InputError, match=r"model operator-100: an operator; accepted: models of prior, joint"):
        ddis.prior.load(model_folder(networks, "poisson", "operator-100"))
    with pytest.raises(InputError, match=r"model prior: no operator; accepted: operator-<percent>"):
        ddis.operator.load(model_folder(networks, "poisson", "prior"))
    for load in (ddis.prior.load, ddis.operator.load):
        with pytest.raises(InputError, match=r"accepted: results/<study>/models/<problem>/<model>"):
            load(tmp_path)
        with pytest.raises(InputError, match=r"weights\.safetensors does not exist"):
            load(model_folder(networks, "poisson", "operator-outside-100").with_name("joint-100"))
