"""How far samplers are from the posterior of helmholtz where every field draws the smoothness of its own random field.

    python benchmarks/helmholtz_mixture.py

α ~ U[1.5, 3], τ ~ U[2, 4], 32 x 32 nodes, 125 observations with noise of 10 % of std(u), 16 samples of each of eight fields, with
the exact denoiser and the exact solver, against 64 samples of `exact`. The weight of `ddis` is the best of five on four other
fields. What more levels give: mixture_gap.py. Writes benchmarks/results/helmholtz_mixture.md. A minute and a half on one core.
"""

from dataclasses import astuple
from pathlib import Path

import numpy as np
import torch
from mixture_gap import RANGES, compare
from two_modes import DDIS, FIELDS, OTHERS, ROWS, WEIGHTS, draw, make_posterior

from ddis.evaluation.calibration import calibration
from ddis.evaluation.metrics import relative_l2, spectral_error
from ddis.files import write_text
from ddis.priors import mixture
from ddis.text import pipe_table

RESULT = Path(__file__).parent / "results" / "helmholtz_mixture.md"
RUNS = {
    "`exact`: the floor": ("exact", {}),
    **{name: row for name, row in ROWS.items() if "steps" not in row[1] or row[0] == "ddis"},
}
COMPARED = 16  # samples of each field, of all rows alike


def best_weight() -> float:
    """Of `ddis`, on other fields."""
    (posterior, truth), errors = make_posterior(OTHERS, "helmholtz", RANGES, mixture), []
    for weight in WEIGHTS:
        drawn = draw(posterior, OTHERS, "ddis", samples=1, weight=weight, **DDIS)[:, 0]
        errors.append(float(relative_l2(drawn, truth).mean()))
        print(f"weight {weight:g}: {100 * errors[-1]:.1f} %", flush=True)
    return WEIGHTS[int(np.nanargmin(errors))]


def main() -> None:
    torch.set_num_threads(1)
    posterior, truth = make_posterior(FIELDS, "helmholtz", RANGES, mixture)
    reference, rows = draw(posterior, FIELDS, "exact", "reference", samples=64), []
    for name, (method, settings) in RUNS.items():
        weight = {"weight": best_weight()} if method == "ddis" else {}
        drawn = draw(posterior, FIELDS, method, **settings, **weight)
        numbers = [f"{value:.3f}" for value in astuple(compare(drawn[:, :COMPARED], reference))]
        numbers.append(f"{100 * relative_l2(drawn, truth[:, None]).mean():.1f}")
        numbers += [f"{spectral_error(drawn, truth[:, None]).mean():.2f}", f"{calibration(drawn, truth).coverage90:.2f}"]
        rows.append([name + "".join(f", weight {value:g}" for value in weight.values()), *numbers])
        print(" | ".join(rows[-1]), flush=True)
    head = ["sampler", "mean", "std", "MMD", "SWD", "spectrum", "l2 of a sample, %", "E_s", "coverage of 90 %"]
    write_text(RESULT, pipe_table(head, rows) + "\n")


if __name__ == "__main__":
    main()
