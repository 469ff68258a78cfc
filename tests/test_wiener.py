"""A denoiser around the Wiener filter: against the closed form, what the filter is worth in a training, where it is refused."""

import copy

import pytest
import torch
from test_models import Recorder
from test_versions import STUDY

import ddis
from ddis.config import Study
from ddis.errors import InputError
from ddis.fields.noise import make_noise
from ddis.grid import Grid, square
from ddis.models.denoiser import SIGMA_DATA, GaussianDenoiser
from ddis.models.levels import GROUPS
from ddis.models.wiener import WienerDenoiser
from ddis.randomness import generator
from ddis.stages import generate, sample, train
from ddis.stages.layout import model_folder, samples_path
from ddis.stages.study import run as write_configuration
from ddis.training import denoising
from ddis.training.diffusion import DiffusionSettings
from ddis.training.loop import Trainer
from ddis.training.settings import TrainingSettings

LEVELS = (-1.2, 1.2)  # mean and standard deviation of ln σ
SMALL = {"channels": [GROUPS, GROUPS], "blocks": [1, 1], "embedding": 8}


def smooth(grid: Grid, channels: int = 1) -> torch.Tensor:
    """Variances [C, *nodes] of the modes of smooth fields whose nodes have the variance σ_d² on average, of each channel."""
    falling = 1 / (1 + torch.from_numpy(grid.basis.half_periods_squared)) ** 2
    several = torch.stack([falling ** (1 + channel) for channel in range(channels)])
    return SIGMA_DATA**2 * several / several.flatten(1).mean(dim=1).reshape(-1, *(1,) * len(grid.shape))


@pytest.mark.parametrize(
    "grid", [square(12), square(12, periodic=True), Grid((16,), (True,), (1.0,)), Grid((8, 12), (False, True), (1.0, 2.0))]
)
def test_without_its_backbone_it_is_the_best_linear_denoiser(grid):
    """Of two channels with their own means and spectra: the closed form, to round-off."""
    rng = generator(0, "fields")
    mean, x_t = (torch.from_numpy(rng.standard_normal((count, 2, *grid.shape))) for count in (1, 3))
    spectrum, noise = smooth(grid, 2), make_noise(grid.basis, "exponential", 0.05, 1e-4, True).spectrum(grid.basis)
    denoiser = WienerDenoiser(Recorder(torch.zeros_like), 2, grid).double()
    denoiser.fit(mean[0], spectrum, noise)
    sigma = torch.tensor([0.02, 0.5, 8.0])
    expected = GaussianDenoiser(grid.basis, spectrum, noise, mean)(x_t, sigma)
    assert torch.allclose(denoiser(x_t, sigma), expected, rtol=1e-12, atol=1e-12)


def test_the_backbones_input_is_white_and_its_target_has_variance_one():
    """At three levels, 400 fields: every mode of the input within 6 standard errors, the target over all nodes within 5."""
    grid, count = square(32), 400
    spectrum, noise = smooth(grid, 2), make_noise(grid.basis, "exponential", 0.02, 1e-4, True)
    rngs = [generator(1, "noise", field) for field in range(count)]
    x = grid.basis.inverse(spectrum.sqrt() * torch.from_numpy(generator(1, "x").standard_normal((count, 2, 32, 32))))
    recorder = Recorder(torch.zeros_like)
    filtering, adding = (WienerDenoiser(part, 2, grid).double() for part in (recorder, Recorder(torch.ones_like)))
    for denoiser in (filtering, adding):
        denoiser.fit(torch.zeros(2, 32, 32), spectrum, noise.spectrum(grid.basis))
    for s in (0.02, 0.5, 7.0):
        sigma = torch.full((count,), s)
        x_t = x + s * noise.sample(tuple(x.shape), rngs).double()
        found = filtering(x_t, sigma)
        seen, level = recorder.seen
        assert torch.allclose(level, sigma.log() / 4)
        modes = grid.basis.forward(seen)
        assert abs(modes.var(dim=0) - 1).max() < 6 * (2 / count) ** 0.5
        c_out = (adding(x_t, sigma) - found).mean(dim=(0, 2, 3))
        target = (x - found) / c_out[:, None, None]
        left = 1 / (
            1 / spectrum + 1 / (s**2 * noise.spectrum(grid.basis))
        )  # variances of the target's modes, which are independent
        error = (2 * left.square().sum(dim=(1, 2)) / count).sqrt() / left.sum(dim=(1, 2))
        assert (abs(target.square().mean(dim=(0, 2, 3)) - 1) < 5 * error).all()
        assert torch.allclose(filtering.loss_weight(sigma, x)[0, :, 0, 0], c_out**-2)


def trainer(preconditioning: str, steps: int) -> tuple[Trainer, torch.Tensor]:
    """Of a small denoiser of smooth Gaussian fields with a mean, seed 2, and the fields' spectrum."""
    grid = square(16)
    spectrum, noise = smooth(grid)[0], make_noise(grid.basis, "exponential", 0.04, 1e-4, True)
    white = torch.from_numpy(generator(2, "fields").standard_normal((512, 1, 16, 16)))
    data = (grid.basis.inverse(spectrum.sqrt() * white) + torch.linspace(-0.5, 0.5, 16)[:, None]).float()
    settings = DiffusionSettings(preconditioning=preconditioning, backbone=SMALL)
    torch.manual_seed(2)
    network = settings.build(1, grid)
    settings.prepare(network, data, noise)
    training = TrainingSettings(steps=steps, batch=16, learning_rate=2e-3, warmup=10, validate_every=10)
    loss, validate = settings.training_loss(network, data, noise, 2, 0), settings.validation_loss(data[:64], noise, 2)
    return Trainer(network, loss, validate, len(data), training, 2, copy.deepcopy(network)), data


def excess(network: torch.nn.Module, data: torch.Tensor) -> list[float]:
    """By how much its error is above that of the optimal denoiser, at three levels."""
    grid, mean = square(16), torch.linspace(-0.5, 0.5, 16)[:, None].expand(1, 16, 16)
    noise = make_noise(grid.basis, "exponential", 0.04, 1e-4, True)
    optimal = GaussianDenoiser(grid.basis, smooth(grid), noise.spectrum(grid.basis), mean)
    errors = denoising.denoising_errors([network, optimal], data, noise, (0.05, 0.5, 5.0), seed=3)
    return [float(own / best - 1) for own, best in errors]


def test_a_gaussian_prior_takes_next_to_no_training():
    """40 steps of 16 fields, seed 2: a few percent above the optimum, where EDM's preconditioning is at 90 % and more."""
    found = {}
    for preconditioning in ("edm", "wiener"):
        made, data = trainer(preconditioning, 40)
        for _ in made.run():
            pass
        made.average.load_state_dict(made.best)
        found[preconditioning] = excess(made.average, data)
    print(found)
    assert max(found["wiener"]) < 0.1
    assert min(found["edm"]) > 0.5


def test_the_filter_is_resumed_and_not_trained():
    """A training stopped after 3 of 6 steps goes on to the same tensors; those of the filter stay as they were at the start."""
    whole, _ = trainer("wiener", 6)
    taken = {name: tensor.clone() for name, tensor in whole.model.named_buffers()}
    for _ in whole.run():
        pass
    first, _ = trainer("wiener", 6)
    for row in first.run(lambda: int(first.progress.step == 3)):
        assert row.step <= 3
    second, _ = trainer("wiener", 6)
    second.model.mean.zero_()  # a state brings its own
    second.load_state(*first.state())
    for _ in second.run():
        pass
    assert {"mean", "spectrum", "noise_spectrum"} <= set(taken)
    for name, tensor in whole.best.items():
        assert torch.equal(second.best[name], tensor)
        assert name not in taken or torch.equal(tensor, taken[name])


def test_priors_and_joint_priors_of_a_study_have_it(tmp_path, monkeypatch):
    """Trained, loaded and sampled with; on other nodes than its own the prior is refused."""
    monkeypatch.chdir(tmp_path)
    prior = {**STUDY["prior"], "preconditioning": "wiener"}
    runs = {name: STUDY["runs"][name] for name in ("ddis-gn", "fundps")}
    study = Study.load({**STUDY, "prior": prior, "joint": prior, "runs": runs})
    write_configuration(study)
    for split in ("train", "validation", "test"):
        generate.run(study, "poisson", split)
    for model in ("prior", "joint-100", "operator-100"):
        train.run(study, "poisson", model)
    for run in runs:
        sample.run(study, "poisson", "sparse", run, "100")
        assert samples_path(study, "poisson", "sparse", run, "100").is_file()
    folder = model_folder(study, "poisson", "prior")
    assert isinstance(ddis.prior.load(folder).denoise, WienerDenoiser)
    with pytest.raises(InputError, match="knows its domain on its own nodes only, 16 x 16"):
        ddis.prior.load(folder, resolution=32)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"prior": {"preconditioning": "wiener", "resolution": 8}},
            r"prior\.preconditioning: wiener, .* accepted: edm, or no res",
        ),
        (
            {"prior": {"preconditioning": "wiener"}, "runs": {"ddis": {"weight": 1, "start_resolution": 8}}},
            r"runs\.ddis\.start_resolution 8: prior\.preconditioning wiener .* accepted: null, or preconditioning edm",
        ),
        ({"prior": {"preconditioning": "white"}}, r"prior\.preconditioning: Input should be 'edm' or 'wiener'"),
    ],
)
def test_what_does_not_go_with_it_is_refused(changed, message):
    with pytest.raises(InputError, match=message):
        Study.load({**STUDY, "runs": {"ddis": {"weight": 1}}, **changed})
