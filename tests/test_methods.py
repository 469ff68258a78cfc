"""What is particular to a method: phases, residual guidance, the joint channels, and the start on a coarser grid."""

import dataclasses

import numpy as np
import pytest
import torch
from posterior_gap import draw, gap, make_setting
from scipy.interpolate import RegularGridInterpolator

from ddis.config import Study
from ddis.data.store import read_samples
from ddis.errors import InputError
from ddis.fields.bases import basis
from ddis.fields.noise import RandomFieldNoise, WhiteNoise, make_noise
from ddis.grid import square
from ddis.models.denoiser import GaussianDenoiser
from ddis.models.ids import ModelId
from ddis.sampling.langevin import LangevinStep
from ddis.sampling.methods import load_method, run_settings
from ddis.sampling.multiresolution import coarsen, linear_interpolation, upsample
from ddis.stages import generate, pairs, sample, train
from ddis.stages.layout import models, samples_path
from ddis.stages.train import diffusion_noise

SIZE, COARSE = 16, 8


@pytest.fixture(scope="module")
def setting():
    torch.set_num_threads(1)
    return make_setting("poisson", fields=2)


def test_residual_guidance_makes_the_residual_smaller(setting):
    """A prior of independent channels knows nothing of the equation: only the guidance brings coefficient and solution together.

    The last output of the denoiser is the sample, both channels of it.
    """
    task = setting.of("fundps", 4)
    solution_spectrum = (setting.solve**2 @ task.spectrum.flatten()).reshape(SIZE, SIZE)
    noise = task.noise.spectrum(task.basis)
    first, second = (GaussianDenoiser(task.basis, spectrum, noise) for spectrum in (task.spectrum, solution_spectrum))
    outputs, residuals = [], []

    def denoise(x, sigma):
        outputs.append(torch.cat([first(x[:, :1], sigma), second(x[:, 1:], sigma)], dim=1))
        return outputs[-1]

    for residual_weight in (0.0, 0.1, 1.0):
        settings = {"samples": 4, "steps": 100, "weight": 30.0, "residual_weight": residual_weight}
        again = dataclasses.replace(setting.of("fundps", 4), prior=denoise)
        list(load_method("fundps")(run_settings("fundps", settings)).sample(again, None))
        residuals.append(float(task.residual(outputs[-1].detach()).square().mean().sqrt()))
    assert residuals[1] < 0.9 * residuals[0] and residuals[2] < 0.6 * residuals[1], residuals


@pytest.mark.parametrize(("steps", "share", "first"), [(10, 0.8, 8), (50, 0.14, 7)])  # 50 x 0.14 is above 7 in round-off
def test_diffusionpde_has_two_phases_in_physical_units(setting, monkeypatch, steps, share, first):
    captured = []

    def catch(task, channels, loss, levels):
        captured.append((loss, levels))
        return iter(())

    monkeypatch.setattr("ddis.sampling.diffusionpde.guided_ode", catch)
    task = setting.of("diffusionpde", 1)
    x0_hat = torch.randn(2, 2, SIZE, SIZE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    settings = run_settings("diffusionpde", {"steps": steps, "weight": 5.0, "residual_weight": 3.0, "first_phase": share})
    list(load_method("diffusionpde")(settings).sample(task, None))
    loss, levels = captured[0]
    a, u = (x0_hat[:, c] * task.units[c] for c in range(2))
    measured = task.observation.values * task.units[1]
    observed = (u.flatten(1).gather(1, task.observation.index) - measured).norm(dim=1)
    equation = task.problem.residual(a, u).flatten(1).norm(dim=1) / (SIZE - 1) ** 2
    assert len(levels) == steps + 1 and levels[0] == pytest.approx(80) and levels[-2] == pytest.approx(0.002)
    for step in range(steps):
        expected = 5 * observed if step < first else 0.5 * observed + 3 * equation
        assert torch.allclose(loss(x0_hat, float(levels[step])), expected, rtol=1e-10), step


def test_langevin_on_the_joint_prior_pulls_at_the_observed_nodes_of_the_solution_alone(setting):
    task = setting.of("joint-daps", 2)
    step = LangevinStep(task, 1.0, 1.0, 3, 1e-3, 0.0, predict=task.predict_joint)
    x0_hat = torch.randn(4, 2, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    moved = (step(x0_hat, x0_hat, 1.0, 0.0) - x0_hat).flatten(2) != 0
    expected = torch.zeros(4, SIZE**2, dtype=torch.bool)
    expected.scatter_(1, task.observation.index.repeat_interleave(2, dim=0), True)
    assert not moved[:, 0].any() and torch.equal(moved[:, 1], expected)


@pytest.mark.parametrize(("periodic", "coarse", "fine"), [(False, 8, 16), (False, 9, 17), (True, 8, 16), (True, 12, 16)])
def test_upsampling_is_bilinear_interpolation(periodic, coarse, fine):
    """Against SciPy's, with the first nodes repeated at the end of a periodic axis."""
    field = np.random.default_rng(0).standard_normal((coarse, coarse))
    known = np.pad(field, (0, 1), mode="wrap") if periodic else field
    axis = np.arange(len(known)) / coarse if periodic else np.linspace(0, 1, coarse)
    wanted = np.arange(fine) / fine if periodic else np.linspace(0, 1, fine)
    expected = RegularGridInterpolator((axis, axis), known)(np.stack(np.meshgrid(wanted, wanted, indexing="ij"), axis=-1))
    found = upsample(torch.from_numpy(field), fine, periodic)
    assert np.allclose(found, expected, atol=1e-12)
    assert np.allclose(linear_interpolation(coarse, fine, periodic).sum(axis=1), 1)
    if not periodic:
        assert np.allclose(found[[0, 0, -1, -1], [0, -1, 0, -1]], field[[0, 0, -1, -1], [0, -1, 0, -1]])


@pytest.mark.parametrize(("name", "diagonal"), [("cosine", False), ("cosine", True), ("fourier", False)])
def test_noise_on_another_grid_has_the_same_kernel(name, diagonal):
    fine, coarse = (make_noise(basis(name, size), "exponential", length=0.1, nugget=1e-4, diagonal=diagonal) for size in (16, 8))
    assert torch.equal(fine.resized(8).spectrum(basis(name, 8)), coarse.spectrum(basis(name, 8)))
    assert WhiteNoise().resized(8).spectrum(basis(name, 8)).shape == (8, 8)


def with_both_grids(setting, chains):
    """The task with the exact denoiser of either grid."""
    task = setting.of("ddis", chains)
    modes = basis("cosine", COARSE)
    spectrum = task.problem.prior_spectrum(COARSE) / task.units[0] ** 2
    coarse = GaussianDenoiser(modes, spectrum, task.noise.resized(COARSE).spectrum(modes))
    fine = task.prior
    return dataclasses.replace(task, prior=lambda x, s: (coarse if x.shape[-1] == COARSE else fine)(x, s))


def test_coarse_task_is_observed_where_the_fine_one_is(setting):
    """Operator of the coarse grid, interpolated to the observed points by SciPy."""
    task = with_both_grids(setting, 1)
    coarse = coarsen(task, COARSE)
    x = torch.randn(2, COARSE, COARSE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    axis = np.linspace(0, 1, COARSE)
    for field, index, values in zip(task.operator(x), task.observation.index, coarse.predict(x), strict=True):
        points = np.stack(np.divmod(index.numpy(), SIZE), axis=-1) / (SIZE - 1)
        assert np.allclose(values, RegularGridInterpolator((axis, axis), field.numpy())(points), atol=1e-12)
    assert coarse.draw_noise().shape == (2, 1, COARSE, COARSE)


def test_chains_that_start_on_a_coarser_grid_end_as_good(setting):
    """Half of the levels on 8 x 8 nodes: the error of a sample within 10 % of that without (16 chains on each of two fields)."""
    settings = {"samples": 16, "steps": 40, "ode_steps": 2, "weight": 0.1}
    single = gap(setting, draw(setting, "ddis", 16, **settings))
    start = {"start_resolution": COARSE, "upsample_at": 20, "start_weight": 0.2}
    task = with_both_grids(setting, 16)
    states = list(load_method("ddis")(run_settings("ddis", settings | start)).sample(task, None))
    assert [state.step for state in states] == list(range(1, 41))
    assert [state.x0.shape[-1] for state in states] == [COARSE] * 20 + [SIZE] * 20
    found = gap(setting, task.basis.forward(states[-1].x0.double()).reshape(2, 16, -1))
    assert found["sample_error"] < 1.1 * single["sample_error"]


def test_weight_before_and_after_the_upsampling(setting, monkeypatch):
    weights = []
    original = LangevinStep.of.__func__
    monkeypatch.setattr(
        LangevinStep, "of", classmethod(lambda cls, task, s, weight: weights.append(weight) or original(cls, task, s, weight))
    )
    common = {"steps": 2, "upsample_at": 1, "start_resolution": COARSE, "langevin_steps": 1, "weight": 0.5}
    for more in ({}, {"start_weight": 0.2}):
        list(load_method("ddis")(run_settings("ddis", common | more)).sample(with_both_grids(setting, 1), None))
    assert sorted(weights[:2]) == [0.5, 0.5] and sorted(weights[2:]) == [0.2, 0.5]


def test_tuning_keeps_the_ratio_of_the_weights_of_the_two_grids():
    settings = run_settings("ddis", {"weight": 10, "start_resolution": COARSE, "start_weight": 5, "samples": 4})
    tried = load_method("ddis")(settings).with_weight(3.0)
    assert (tried.weight, tried.start_weight, tried.samples) == (3.0, 1.5, 1)
    tried = load_method("ddis")(run_settings("ddis", {"weight": 10})).with_weight(3.0)
    assert (tried.weight, tried.start_weight) == (3.0, None)


def test_tuning_curves_belong_to_the_ratio_of_the_weights_of_the_two_grids():
    def digest(**values):
        runs = {"coarse": {**STUDY["runs"]["coarse"], **values}}
        study = Study.load({**STUDY, "runs": runs, "tuning": {"candidates": {"coarse": [1e-3]}}})
        return study.digest("tune", problem="poisson", observation="sparse", run="coarse", percent="50")

    first = digest(weight=1e-3, start_weight=5e-4)
    assert first == digest(weight=2e-3, start_weight=1e-3) and first != digest(weight=2e-3, start_weight=5e-4)


BACKBONE = {"channels": [8, 8], "blocks": [1, 1], "embedding": 8}
TRAINING = {"steps": 4, "batch": 8, "validate_every": 2}
STUDY = {
    "study": "methods",
    "device": "cpu",
    "problems": {"poisson": {"pde": "poisson"}, "navier-stokes": {"pde": "navier-stokes", "time": 0.05}},
    "data": {"resolution": 16, "train": 32, "validation": 8, "test": 2},
    "fractions": [0.5],
    "observations": {"sparse": {"count": 20}},
    "prior": {"backbone": BACKBONE, "training": TRAINING},
    "joint": {"backbone": BACKBONE, "training": TRAINING},
    "flow": {"backbone": BACKBONE, "training": TRAINING},
    "operator": {"network": {"modes": 4, "width": 4, "layers": 2}, "training": TRAINING},
    "runs": {
        "coarse": {"method": "ddis", "steps": 4, "langevin_steps": 2, "weight": 1e-3, "start_resolution": 12, "upsample_at": 2},
        "ddis-solver": {"method": "ddis", "operator": "solver", "steps": 3, "langevin_steps": 2, "weight": 1e-3},
        "ddis-dps": {"steps": 3, "weight": 0.01},
        "dps-solver": {"method": "ddis-dps", "operator": "solver", "steps": 3, "weight": 0.01},
        "fundps": {"steps": 3, "weight": 0.01, "residual_weight": 0.1},
        "diffusionpde": {"steps": 5, "weight": 0.01},
        "joint-daps": {"steps": 3, "langevin_steps": 2, "weight": 1e-3},
        "eci": {"steps": 3, "mix": {"poisson": 1, "navier-stokes": 2}},
        "ofm": {"steps": 2, "ode_steps": 1, "linearisations": 1},
    },
}


def changed(**runs):
    return {**STUDY, "runs": {name: {**STUDY["runs"][name], **values} for name, values in runs.items()}}


def test_white_joint_prior_is_a_model_of_its_own():
    study = Study.load(STUDY)
    assert study.models_of("diffusionpde", "50") == ["joint-white-50"] and study.models_of("joint-daps", "50") == ["joint-50"]
    assert ModelId.parse("joint-white-12.5") == ModelId("joint", "12.5", white=True)
    for name in ("prior", "joint-1", "joint-white-12.5", "flow-12.5", "operator-100"):
        assert str(ModelId.parse(name)) == name
    for name in ("operator", "joint-white", "prior-5", "flow", "operator-101", "joint-x", ""):
        with pytest.raises(InputError):
            ModelId.parse(name)
    longer = Study.load({**STUDY, "noise": {"length": 0.05}})
    digests = [
        [s.digest("train", problem="poisson", model=model) for model in ("joint-50", "joint-white-50")] for s in (study, longer)
    ]
    assert digests[0][0] != digests[1][0] and digests[0][1] == digests[1][1] and len({*digests[0]}) == 2
    models = [ModelId("joint", "50", white) for white in (True, False)]
    noises = [type(diffusion_noise(study, "navier-stokes", model, study.data.resolution)[1]) for model in models]
    assert noises[0] is WhiteNoise and noises[1] is not WhiteNoise
    with pytest.raises(InputError, match=r"'joint-grey-50' is unknown; accepted: .*joint-white-<percent>"):
        study.digest("train", problem="poisson", model="joint-grey-50")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"error_model": "spectral"}, r"runs\.coarse\.error_model spectral: known on the data's grid only"),
        ({"start_resolution": None, "start_weight": 1}, r"runs\.coarse\.start_weight: there is no coarser grid"),
        ({"start_weight": 1, "weight": 0}, r"runs\.coarse\.start_weight 1.* with weight 0; leave out start_weight"),
        ({"start_resolution": 16}, r"runs\.coarse\.start_resolution 16: not coarser than the data; accepted: below 16"),
        ({"start_resolution": 2}, r"runs\.coarse\.start_resolution 2: resolution 2: too small for the stencil"),
        ({"upsample_at": 4}, r"runs\.coarse\.upsample_at 4: no step of 4 is left for the fine grid; accepted: less"),
    ],
)
def test_bad_coarse_grids_are_errors(values, message):
    with pytest.raises(InputError, match=message):
        Study.load(changed(coarse=values))


@pytest.mark.parametrize("problem", list(STUDY["problems"]))
def test_every_method_runs_through_the_stages(problem, tmp_path, monkeypatch):
    """Networks of four steps: finite samples, and the evaluations that the steps take."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DDIS_TRACKING", "off")
    study = Study.load(STUDY)
    for split in ("train", "validation", "test"):
        generate.run(study, problem, split)
    pairs.run(study, problem, "50")
    for model in models(study, problem):
        train.run(study, problem, model)
    heun, langevin = {3: 5, 5: 9}, 2 * 2
    evaluations = {
        "coarse": (4 * heun[5], 4 * langevin),
        "ddis-solver": (3 * heun[5], 3 * langevin),
        "ddis-dps": (heun[3], 2 * 2),
        "dps-solver": (heun[3], 2 * 2),
        "fundps": (heun[3], 0),
        "diffusionpde": (heun[5], 0),
        "joint-daps": (3 * heun[5], 0),
        "eci": ({"poisson": 3, "navier-stokes": 6}[problem], 0),
        "ofm": (2 * (3 + 1 + 20), 0),
    }
    for case in study.cases():
        if case.problem == problem:
            sample.run(study, **vars(case))
            samples = read_samples(samples_path(study, **vars(case)))
            assert np.isfinite(samples.coefficient).all()
            counted = tuple(samples.attributes[f"{name}_evaluations"] for name in ("prior", "operator"))
            assert counted == evaluations[case.run], case.run


def test_stationary_noise_is_resized_too():
    noise = RandomFieldNoise(square(16, True), "gaussian", 0.1).resized(32)
    assert (noise.grid, noise.kernel, noise.length) == (square(32, True), "gaussian", 0.1)
