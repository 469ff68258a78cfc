"""Which samplers find both modes of a posterior that has a and -a alike.

    python benchmarks/two_modes.py

poisson-squared on 32 x 32 nodes: 125 observations with noise of 10 % of std(v), 16 samples (es-mda: 256) of each of eight fields,
with the exact denoiser and the exact solver: what is left is that of the sampler. The weight of `ddis` is the best of five on
four other fields, one sample each, by the error of the nearer of it and its negative. Writes benchmarks/results/two_modes.md, and
for one field docs/posteriors/two-modes.png. A minute and a half on one core.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from ddis.evaluation.calibration import calibration
from ddis.evaluation.figures.grids import colour_bar, draw_field
from ddis.evaluation.figures.style import drawing, field_colours, small_png
from ddis.evaluation.metrics import relative_l2, spectral_error
from ddis.evaluation.modes import mode_columns
from ddis.fields.noise import DiagonalNoise, RandomFieldNoise
from ddis.files import write_text, write_together
from ddis.grid import square
from ddis.models.denoiser import SIGMA_DATA
from ddis.models.normalisation import Normalisation
from ddis.observe.nodes import Nodes, draw_nodes
from ddis.operators.solver import Solver
from ddis.pde import make_problem
from ddis.posterior import Posterior
from ddis.priors import Prior, gaussian
from ddis.randomness import generator
from ddis.sampling.methods import load_method, run_settings
from ddis.text import pipe_table, with_interval

SEED, SIZE, OBSERVED, NOISE, FIELDS, CHAINS = 7, 32, 125, 0.1, range(8), 16
OTHERS = range(50, 54)
WEIGHTS = (0.1, 0.3, 1.0, 3.0, 10.0)
DDIS = {"steps": 50, "ode_steps": 1, "langevin_steps": 10}
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "`tikhonov`": ("tikhonov", {}),
    "`es-mda`, 256": ("es-mda", {"samples": 256}),
    "`ddis`": ("ddis", DDIS),
    "`ddis-gn`, 10 levels": ("ddis-gn", {}),
    "`ddis-gn`, 30 levels": ("ddis-gn", {"steps": 30}),
}
RESULT = Path(__file__).parent / "results" / "two_modes.md"
PICTURE = Path(__file__).parents[1] / "docs" / "posteriors" / "two-modes.png"


def make_posterior(
    fields: Sequence[int],
    pde: str = "poisson-squared",
    parameters: Mapping[str, Any] = MappingProxyType({}),
    prior: Callable[..., Prior] = gaussian,
) -> tuple[Posterior, np.ndarray]:
    """Observations of the given fields with their prior, and the coefficients [n, S, S], normalised; all from SEED."""
    problem = make_problem(pde, dict(parameters), SIZE)
    scale = Normalisation(0.0, float(problem.solve(problem.sample_coefficients(range(100, 164), SIZE, SEED)).std()))
    space = problem.coefficient_space(SIZE)
    noise = DiagonalNoise(RandomFieldNoise(space.grid, "exponential", 0.02), space.grid.basis)
    index = torch.stack([torch.from_numpy(draw_nodes(space.grid, OBSERVED, SEED, f)) for f in fields])
    a = problem.sample_coefficients(fields, SIZE, SEED)
    error = torch.stack([torch.from_numpy(generator(SEED, "noise", f).standard_normal(OBSERVED)) for f in fields])
    values = problem.solve(a).flatten(1).gather(1, index) + NOISE * scale.std * error
    posterior = Posterior(problem, prior(problem, noise), Solver(problem, scale), Nodes(index, NOISE * scale.std), values)
    return posterior, (a * (SIGMA_DATA / posterior.coefficient.std)).numpy()


def draw(posterior: Posterior, fields: Sequence[int], method: str, stream: str = "chain", **settings: Any) -> np.ndarray:
    """Samples [n, K, S, S], normalised; numbers from another stream are independent."""
    chosen = run_settings(method, {"samples": CHAINS, **settings})
    made = load_method(method)(chosen)
    batch = posterior.batch(made, slice(None), [generator(SEED, stream, f, k) for f in fields for k in range(chosen.samples)])
    *_, last = made.sample(batch, made.prepare(batch))
    return last.x0.reshape(len(fields), chosen.samples, SIZE, SIZE).numpy()


def nearer(drawn: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Errors of samples or their negatives, whichever is smaller."""
    return np.minimum(relative_l2(drawn, truth), relative_l2(-drawn, truth))


def best_weight() -> float:
    """Of `ddis`, on other fields."""
    (posterior, truth), errors = make_posterior(OTHERS), []
    for weight in WEIGHTS:
        errors.append(nearer(draw(posterior, OTHERS, "ddis", samples=1, weight=weight, **DDIS)[:, 0], truth).mean())
        print(f"weight {weight:g}: {100 * errors[-1]:.1f} %", flush=True)
    return WEIGHTS[int(np.nanargmin(errors))]


def figures(drawn: np.ndarray, truth: np.ndarray) -> list[str]:
    """A row of the table: errors, calibration, shares of the modes."""
    target = truth[:, None]
    errors = [f"{100 * wrong.mean():.1f}" for wrong in (relative_l2(drawn, target), nearer(drawn, target))]
    shares = mode_columns(((drawn * target).sum(axis=(2, 3)) > 0).astype(np.float64))
    modes = [with_interval(shares, name, f"{name}_low", f"{name}_high", 2) for name in ("mode_share", "mode_pairs")]
    return [*errors, f"{spectral_error(drawn, target).mean():.2f}", f"{calibration(drawn, truth).coverage90:.2f}", *modes]


def picture(shown: dict[str, np.ndarray], truth: np.ndarray) -> Figure:
    """Of one field [S, S]: mean above standard deviation of each sampler's samples [K, S, S]."""
    grid, below = square(SIZE), {"cmap": "magma", "vmin": 0.0, "vmax": 1.2 * np.abs(truth).max()}
    with drawing({"axes.grid": False}):
        figure = Figure(figsize=(1.6 * (len(shown) + 1) + 1.5, 3.9), layout="constrained")
        axes = figure.subplots(2, len(shown) + 1)
        axes[1, 0].set_axis_off()
        axes[0, 0].set_title("truth $a$")
        draw_field(axes[0, 0], truth, field_colours(truth), grid)
        for (name, drawn), (top, bottom) in zip(shown.items(), axes.T[1:], strict=True):
            mean = draw_field(top, drawn.mean(axis=0), field_colours(truth), grid)
            std = draw_field(bottom, drawn.std(axis=0, ddof=1), below, grid)
            top.set_title(name.replace("`", ""))
        for bar, row, label, extend in ((mean, 0, "mean", "both"), (std, 1, "standard deviation", "max")):
            colour_bar(figure, bar, list(axes[row]), label, pad=0.01, extend=extend)
        for ax in axes.flat:
            ax.set(xticks=[], yticks=[])
    return figure


def main() -> None:
    torch.set_num_threads(1)
    (posterior, truth), rows, shown = make_posterior(FIELDS), [], {}
    for name, (method, settings) in ROWS.items():
        weight = {"weight": best_weight()} if method == "ddis" else {}
        drawn = draw(posterior, FIELDS, method, **settings, **weight)
        shown[name] = drawn[0]
        rows.append([name + "".join(f", weight {value:g}" for value in weight.values()), *figures(drawn, truth)])
        print(" | ".join(rows[-1]), flush=True)
    head = ["sampler", "l2 of a sample, %", "of the nearer of it and its negative", "E_s", "coverage of 90 %"]
    head += ["share at the truth's sign", "pairs in two modes"]
    write_text(RESULT, pipe_table(head, rows) + "\n")
    write_together({PICTURE: small_png(picture(shown, truth[0]))})


if __name__ == "__main__":
    main()
