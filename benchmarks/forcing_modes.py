"""How much of an error on navier-stokes is in the modes of its forcing, and whether the joint network can tell where they are.

    python benchmarks/forcing_modes.py

The forcing has the wavenumbers ±(1, 1) alone. A U-Net with circular padding commutes with shifts by as many nodes as it
downsamples by: so does the joint prior that it learns, although the distribution of the solutions, which the forcing moves,
does not. Reads the finished study navier-stokes-64, the first sample of every test field, and writes
benchmarks/results/forcing_modes.md. Seconds.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ddis.config import Case, Study
from ddis.evaluation.metrics import relative_l2
from ddis.files import write_text
from ddis.stages.common import load_pairs
from ddis.stages.tables import read_case
from ddis.text import pipe_table
from ddis.trained import of_folder

ROOT = Path(__file__).parents[1]
STUDY, PROBLEM, OBSERVATION = ROOT / "results" / "navier-stokes-64", "navier-stokes", "sparse"
RUNS = (("ddis", "100"), ("ddis-gn", "100"), ("fundps", "1"), ("fundps", "100"), ("diffusionpde", "100"))
SHIFT, SEED, SIGMA = (16, 8), 0, 1.0  # the nodes are halved three times: multiples of eight are whole steps


def forced(fields: NDArray[np.float64]) -> NDArray[np.float64]:
    """What fields [N, S, S] have in the modes ±(1, 1)."""
    spectrum = np.fft.fft2(fields)
    kept = np.zeros_like(spectrum)
    kept[:, 1, 1], kept[:, -1, -1] = spectrum[:, 1, 1], spectrum[:, -1, -1]
    return np.asarray(np.fft.ifft2(kept).real)


def rolled(fields: Tensor) -> Tensor:
    """Fields [.., S, S] of a periodic domain, shifted."""
    return torch.roll(fields, SHIFT, (-2, -1))


def main() -> None:
    study = Study.load(STUDY / "config.yaml")
    truth = load_pairs(study, PROBLEM, "test").coefficient.astype(np.float64)
    rows = []
    for run, percent in RUNS:
        fields = read_case(study, Case(PROBLEM, OBSERVATION, run, percent)).coefficient[:, 0].astype(np.float64)
        error = fields - truth
        share = (forced(error) ** 2).sum() / (error**2).sum()
        errors = [100 * float(np.mean(relative_l2(x, truth))) for x in (fields, fields - forced(error))]
        rows.append([f"`{run}`", percent, f"{errors[0]:.1f}", f"{100 * share:.0f}", f"{errors[1]:.1f}"])
    network = of_folder(STUDY / "models" / PROBLEM / "joint-100").network.eval()
    x = torch.randn(1, 2, *truth.shape[1:], generator=torch.Generator().manual_seed(SEED))
    with torch.no_grad():
        shifted, expected = network(rolled(x), torch.tensor([SIGMA])), rolled(network(x, torch.tensor([SIGMA])))
    difference = float((shifted - expected).abs().max() / expected.abs().max())
    head = ["run", "% pairs", "l2 of a sample, %", "squared error in the forcing's modes, %", "l2 without them, %"]
    told = f"The output of `joint-100` for shifted fields is its output, shifted, but for {difference:.0e} of the largest value."
    write_text(ROOT / "benchmarks" / "results" / "forcing_modes.md", f"{pipe_table(head, rows)}\n\n{told}\n")


if __name__ == "__main__":
    main()
