"""What networks that were trained on restricted fields, 32 x 32 nodes, are worth on all nodes, 64 x 64.

    python benchmarks/coarse_training.py

2,000 fields of poisson. The operator fno is trained on pairs that are restricted in each of three ways,

    nodes   every second node of each axis
    ends    linear interpolation to the nodes i / (S - 1) of the coarse axis, so that both axes end at the same places
    means   of blocks of 2 x 2 nodes, as `ddis.training.coarse` restricts them

and then gives the mean of ||G(a) - u|| / ||u|| over fresh pairs, restricted likewise and on all nodes. The backbones uno and unet
are trained on means, with noise of length 0.1, three of the coarse nodes, with EDM's preconditioning and around a Wiener filter
(preconditioning: wiener), which is another one on every grid. Their squared error above that of the optimal denoiser,

    excess(σ) = E ||D(x + σ n; σ) - x||^2 / E ||D*(x + σ n; σ) - x||^2 - 1,    D*: mode by mode C / (C + σ^2 Γ)

is taken on fresh fields, with the variances C of the modes of the fields and Γ of the noise on the grid in question. Means keep
modes independent: mode k of a coarse axis is made of the modes k and S - k of the S fine nodes alone, and so

    C_coarse = P2 C P2',    P2: squares of the coarse modes of the means of the fine axis's functions.

Last, by bands of modes, E ||D - x||^2 over E ||x||^2 at one level: above 1 a denoiser has made modes of its own.
Groups of one channel at the finest level; one seed. Writes benchmarks/results/coarse_training.md. Seven minutes on one core.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ddis.fields.bases import Basis
from ddis.fields.noise import Noise, make_noise
from ddis.files import write_text
from ddis.grid import Grid, square
from ddis.models.architectures import architecture_of
from ddis.models.backbones import backbone_of
from ddis.models.denoiser import GaussianDenoiser
from ddis.models.normalisation import Normalisation
from ddis.models.operator import NeuralOperator
from ddis.pde import make_problem
from ddis.randomness import generator
from ddis.sampling.multiresolution import linear_interpolation
from ddis.stages.common import keep_freed_memory
from ddis.text import pipe_table
from ddis.training import denoising, regression
from ddis.training.coarse import restricted
from ddis.training.diffusion import DiffusionSettings
from ddis.training.loop import Trainer
from ddis.training.settings import TrainingSettings

SEED, FINE, COARSE = 0, 64, 32
COUNTS = {"train": 2000, "validation": 200, "test": 200}
NETWORK = {"architecture": "fno", "modes": 16, "width": 20, "layers": 2}
OPERATOR = TrainingSettings(steps=700, batch=8, learning_rate=1e-2, ema_half_life=1000)
PRIOR = TrainingSettings(steps=350, batch=16, learning_rate=2e-3, ema_half_life=2000)
LENGTH = 0.1  # of the noise
JUDGED = 64  # fresh fields that denoisers are judged on
BANDS, LEVEL = (0.0, 4.0, 8.0, 16.0, 24.0, 32.0), 0.5  # half periods, σ
RESULT = Path(__file__).parent / "results" / "coarse_training.md"

Pairs = tuple[Tensor, Tensor]


def nodes(fields: Tensor) -> Tensor:
    """Every second node [..., S/2, S/2] of fields [..., S, S]."""
    return fields[..., ::2, ::2].contiguous()


def ends(fields: Tensor) -> Tensor:
    """Fields [..., S, S] interpolated to S/2 nodes per axis, the first and last of which are those of the fine axis."""
    size = fields.shape[-1]
    matrix = torch.from_numpy(linear_interpolation(size, size // 2, periodic=False)).to(fields)
    return matrix @ fields @ matrix.T


def means(fields: Tensor) -> Tensor:
    """Means [..., S/2, S/2] of blocks of 2 x 2 nodes."""
    return restricted(fields, square(fields.shape[-1] // 2))


WAYS: dict[str, Callable[[Tensor], Tensor]] = {"nodes": nodes, "ends": ends, "means": means}


def spectrum_of_means(spectrum: Tensor, fine: Basis, coarse: Basis) -> Tensor:
    """Variances [S/2, S/2] of the modes of means of blocks, of those [S, S] of the field."""
    line = Grid(coarse.shape[:1], (False,), coarse.lengths[:1])
    squares = (coarse.matrices[0] @ restricted(fine.matrices[0], line).T) ** 2
    return squares @ spectrum @ squares.T


def make_pairs() -> tuple[dict[str, Pairs], tuple[Normalisation, Normalisation]]:
    """Normalised pairs [N, S, S] by split, on all nodes, and the normalisations."""
    problem, start, fields = make_problem("poisson", {}, FINE), 0, {}
    for split, count in COUNTS.items():
        a = problem.sample_coefficients(range(start, start + count), FINE, SEED)
        fields[split] = a, torch.cat([problem.solve(part) for part in a.split(100)])
        start += count
    scales = tuple(Normalisation.of(field.numpy()) for field in fields["train"])
    return {split: (scales[0].normalise(a).float(), scales[1].normalise(u).float()) for split, (a, u) in fields.items()}, scales


def finish(trainer: Trainer) -> None:
    """The whole training; its average is then the one with the smallest validation loss."""
    for _ in trainer.run():
        pass
    trainer.average.load_state_dict(trainer.best)
    trainer.average.requires_grad_(False)


def trained_operator(train: Pairs, validation: Pairs, scales: tuple[Normalisation, Normalisation]) -> NeuralOperator:
    torch.manual_seed(SEED)
    spaces = make_problem("poisson", {}).spaces(COARSE)
    network, average = (NeuralOperator(architecture_of(NETWORK), spaces, *scales) for _ in range(2))
    loss = regression.training_loss(network, *train)
    validate = regression.validation_loss(*validation)
    finish(Trainer(network, loss, validate, len(train[0]), OPERATOR, SEED, average))
    return average


def noise_on(grid: Grid) -> Noise:
    return make_noise(grid.basis, "exponential", LENGTH, 1e-4, diagonal=True)


def trained_denoiser(settings: DiffusionSettings, train: Tensor, validation: Tensor) -> nn.Module:
    """Of means of fields [N, 1, S, S], for both grids."""
    torch.manual_seed(SEED)
    network, average = (settings.build(1, square(FINE), coarse=square(COARSE)) for _ in range(2))
    settings.fit(network, lambda grid: [restricted(train, grid)], noise_on)
    noise = noise_on(square(COARSE))
    loss = settings.training_loss(network, means(train), noise, SEED, 0)
    validate = settings.validation_loss(means(validation), noise, SEED)
    finish(Trainer(network, loss, validate, len(train), PRIOR, SEED, average))
    return average


@torch.no_grad()
def relative_error(network: NeuralOperator, pairs: Pairs) -> float:
    """Mean relative l2 error on normalised pairs, in percent."""
    return 100 * regression.validation_loss(*pairs)(network)


@torch.no_grad()
def band_errors(denoiser: Callable[[Tensor, Tensor], Tensor], x: Tensor, noise: Noise, basis: Basis) -> list[float]:
    """E ||D - x||^2 / E ||x||^2 of each band of modes at LEVEL, of fields [N, 1, S, S]."""
    generators = [generator(SEED, "bands", place) for place in range(len(x))]
    noisy = x + LEVEL * noise.sample(tuple(x.shape), generators)
    error, power = (
        (basis.forward(field.double()) ** 2).mean(dim=(0, 1)).numpy()
        for field in (denoiser(noisy, torch.full((len(x),), LEVEL)) - x, x)
    )
    k = np.sqrt(basis.half_periods_squared)
    bands = [(k >= low) & (k < high) for low, high in pairwise(BANDS)]
    return [float(error[band].sum() / power[band].sum()) for band in bands]


def judged(denoiser: nn.Module, x: Tensor, noise: Noise, basis: Basis, spectrum: Tensor) -> tuple[list[float], list[str]]:
    """The excess in percent at each of denoising.SIGMAS; error by bands, in brackets the optimal denoiser's."""
    rows = denoising.quality(denoiser, x, spectrum, basis, noise, SEED)
    optimal = GaussianDenoiser(basis, spectrum, noise.spectrum(basis))
    own, best = (band_errors(each, x, noise, basis) for each in (denoiser, optimal))
    return [100 * row["excess"] for row in rows], [f"{a:.2f} ({b:.2f})" for a, b in zip(own, best, strict=True)]


def operator_rows(pairs: dict[str, Pairs], scales: tuple[Normalisation, Normalisation]) -> list[list[str]]:
    rows = []
    for name, way in WAYS.items():
        coarse = {split: (way(a), way(u)) for split, (a, u) in pairs.items()}
        network = trained_operator(coarse["train"], coarse["validation"], scales)
        errors = [relative_error(network, each) for each in (coarse["test"], pairs["test"])]
        rows.append([name, *(f"{error:.1f}" for error in errors)])
        print(rows[-1], flush=True)
    return rows


def denoiser_rows(pairs: dict[str, Pairs], scale: Normalisation) -> tuple[list[list[str]], list[list[str]]]:
    """Rows of the excess by level, and of the error by bands."""
    fields = {split: a[:, None] for split, (a, _) in pairs.items()}
    spectrum = make_problem("poisson", {}).prior_spectrum(FINE)
    assert spectrum is not None
    spectrum = spectrum / float(scale.unit) ** 2
    fine, coarse = square(FINE).basis, square(COARSE).basis
    spectra = {COARSE: spectrum_of_means(spectrum, fine, coarse), FINE: spectrum}
    excesses, bands = [], []
    for preconditioning, name in product(("edm", "wiener"), ("uno", "unet")):
        settings = DiffusionSettings(preconditioning=preconditioning, backbone=backbone_of({"name": name, "group": 1}))
        denoiser = trained_denoiser(settings, fields["train"], fields["validation"])
        for size, basis in ((COARSE, coarse), (FINE, fine)):
            x = restricted(fields["test"][:JUDGED], square(size))
            excess, errors = judged(denoiser, x, noise_on(square(size)), basis, spectra[size])
            label = [f"`{name}`", preconditioning, str(size)]
            excesses.append([*label, *(f"{value:.1f}" for value in excess)])
            bands.append([*label, *errors])
            print(excesses[-1], bands[-1], flush=True)
    return excesses, bands


def page(operators: Sequence[Sequence[str]], excesses: Sequence[Sequence[str]], bands: Sequence[Sequence[str]]) -> str:
    ranges = [f"{low:g} to {high:g}" for low, high in pairwise(BANDS)]
    parts = [
        f"Networks trained on {COARSE} x {COARSE} nodes, of {COUNTS['train']:,} fields of poisson on {FINE} x {FINE} nodes.",
        "Relative l2 error of the operator fno on fresh pairs, in percent, by how the fields were restricted:",
        pipe_table(["restricted to", f"on {COARSE} nodes", f"on {FINE}"], operators, [False, True, True]),
        f"Squared error of denoisers above that of the optimal one, in percent ({JUDGED} fresh fields):",
        pipe_table(
            ["backbone", "preconditioning", "nodes", *(f"σ = {s:g}" for s in denoising.SIGMAS)],
            excesses,
            [False] * 2 + [True] * (1 + len(denoising.SIGMAS)),
        ),
        f"Squared error in bands of modes at σ = {LEVEL:g}, in units of the field's power there; in brackets the optimal "
        "denoiser's. Columns: half periods of the modes.",
        pipe_table(["backbone", "preconditioning", "nodes", *ranges], bands, [False] * 2 + [True] * (1 + len(ranges))),
    ]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    torch.set_num_threads(1)
    keep_freed_memory()
    pairs, scales = make_pairs()
    write_text(RESULT, page(operator_rows(pairs, scales), *denoiser_rows(pairs, scales[0])))
    print(RESULT.read_text())


if __name__ == "__main__":
    main()
