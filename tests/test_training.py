"""The training loop resumes bit for bit; its loss has the value that theory gives."""

import numpy as np
import pytest
import torch
from torch import nn
from trainings import SETTINGS, denoiser_trainer, finish, flow_trainer, load, operator_trainer, save, wiener_trainer

from ddis.errors import InputError
from ddis.fields.bases import basis
from ddis.fields.noise import DiagonalNoise, RandomFieldNoise
from ddis.grid import square
from ddis.models.denoiser import GaussianDenoiser
from ddis.training import denoising
from ddis.training.adam import Adam
from ddis.training.loop import Trainer, batch_indices


@pytest.mark.parametrize("make", [denoiser_trainer, wiener_trainer, flow_trainer, operator_trainer])
def test_stopped_and_resumed_gives_the_weights_of_an_unbroken_run(make, tmp_path):
    torch.set_num_threads(1)
    unbroken = finish(make())
    for stop in (1, 4, 6):
        first = make()
        for record in first.run():
            if record.step == stop:
                break
        save(first, tmp_path / "checkpoint")
        second = finish(load(make(), tmp_path / "checkpoint"))
        expected, found = unbroken.state()[0], second.state()[0]
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[name], found[name]) for name in expected)
        keep = ("step", "train_loss", "validation_loss", "learning_rate")
        assert [[row[k] for k in keep] for row in unbroken.progress.history] == [
            [row[k] for k in keep] for row in second.progress.history
        ]


def test_adam_steps_as_torch_does():
    rng = torch.Generator().manual_seed(0)
    shapes, types = [(3, 2), (4,)], [torch.float32, torch.complex64]
    start = [torch.randn(s, generator=rng, dtype=d) for s, d in zip(shapes, types, strict=True)]
    ours, theirs = ([nn.Parameter(value.clone()) for value in start] for _ in range(2))
    optimizer, reference = Adam(ours), torch.optim.Adam(theirs, foreach=True)
    for rate in (0.1, 0.03, 0.01):
        for mine, other in zip(ours, theirs, strict=True):
            mine.grad = torch.randn(mine.shape, generator=rng, dtype=mine.dtype)
            other.grad = mine.grad.clone()
        reference.param_groups[0]["lr"] = rate
        optimizer.step(rate)
        reference.step()
    assert all(torch.equal(mine, other) for mine, other in zip(ours, theirs, strict=True))
    assert all(not torch.equal(mine, value) for mine, value in zip(ours, start, strict=True))


def test_every_field_is_seen_once_an_epoch():
    seen = np.concatenate([batch_indices(0, step, batch=4, count=10) for step in range(5)])
    assert sorted(seen[:10]) == list(range(10)) and sorted(seen[10:]) == list(range(10))
    assert list(seen[:10]) != list(seen[10:])


def test_the_best_average_is_kept():
    trainer = operator_trainer()
    losses = iter([3.0, 1.0, 2.0])
    trainer.validate = lambda model: next(losses)
    kept = []
    for record in trainer.run():
        if record.validation_loss == 1.0:
            kept = [t.clone() for t in trainer.average.state_dict().values() if isinstance(t, torch.Tensor)]
    assert trainer.progress.best_loss == 1.0
    assert all(torch.equal(a, b) for a, b in zip(kept, trainer.best.values(), strict=True))


def test_learning_rate_rises_then_falls_to_one_percent():
    trainer = operator_trainer()
    rates = [trainer.learning_rate(step) for step in range(SETTINGS.steps + 1)]
    assert rates[0] == pytest.approx(0.5e-2) and max(rates) == pytest.approx(1e-2) and rates[-1] == pytest.approx(1e-4)


def test_average_of_constant_weights_moves_by_the_half_life():
    """With weights held at 1 and the average at 0, one step of b fields leaves 2^(-b/h), h the ramped half-life 0.05 b."""
    model, average = nn.Linear(1, 1), nn.Linear(1, 1)
    trainer = Trainer(model, lambda i, s: torch.zeros(()), lambda m: 0.0, 10, SETTINGS, 0, average)
    for parameter in model.parameters():
        nn.init.ones_(parameter)
    for parameter in average.parameters():
        nn.init.zeros_(parameter)
    trainer._update_average(step=200)
    half_life = min(SETTINGS.ema_half_life, 0.05 * 201 * SETTINGS.batch)
    assert float(average.weight.detach()) == pytest.approx(1 - 0.5 ** (SETTINGS.batch / half_life))


def test_denoising_errors_of_the_optimal_denoiser_are_the_conditional_variance():
    """Mean squared error per node = mean over modes of c s² k/(c + s² k); 2,000 fields of 8 x 8, 5 standard errors allowed."""
    modes = basis("cosine", 8)
    noise = DiagonalNoise(RandomFieldNoise(square(8), "exponential", 0.2), modes)
    spectrum = torch.from_numpy(np.random.default_rng(0).uniform(0.05, 0.5, (8, 8)))
    torch.manual_seed(0)
    data = modes.inverse(spectrum.sqrt() * torch.randn(2000, 8, 8, dtype=torch.float64))[:, None].float()
    optimal = GaussianDenoiser(modes, spectrum, noise.spectrum(modes))
    sigmas = [0.1, 1.0]
    found = denoising.denoising_errors([optimal], data, noise, sigmas, seed=0)[:, 0]
    for s, value in zip(sigmas, found, strict=True):
        variance = spectrum * s**2 * noise.spectrum(modes) / (spectrum + s**2 * noise.spectrum(modes))
        standard_error = float((2 * (variance**2).sum()).sqrt()) / 64 / np.sqrt(2000)
        assert value == pytest.approx(float(variance.mean()), abs=5 * standard_error)


def test_loss_that_is_not_finite_stops_the_training_with_a_reason():
    trainer = operator_trainer()
    trainer.loss = lambda indices, step: torch.tensor(float("nan"), requires_grad=True)
    with pytest.raises(InputError, match="learning_rate"):
        next(trainer.run())
