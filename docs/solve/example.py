"""The example of docs/solve.md: a known coefficient, 60 noisy observations of its solution, and what was found against the truth.

    python docs/solve/example.py                 writes docs/solve/observations.csv
    python docs/solve/example.py solution.h5     compares a solution with the truth

The coefficient is a draw from the distribution of the quickstart study that is in none of its data. The points lie anywhere; the
solution between nodes is its sine series, whose terms vanish at the boundary as the solution does. Noise: 1 % of its standard
deviation.
"""

import csv
import sys
from pathlib import Path

import h5py
import numpy as np

from ddis.fields.bases import sine_matrix
from ddis.pde import make_problem

SIZE, SEED, COUNT, NOISE = 32, 2026, 60, 0.01


def truth() -> tuple[np.ndarray, np.ndarray]:
    """Coefficient and solution [S, S]."""
    problem = make_problem("poisson", {})
    coefficient = problem.sample_coefficients([0], SIZE, SEED)
    return coefficient[0].numpy(), problem.solve(coefficient)[0].numpy()


def sine_series(solution: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The solution [S, S] at points x, y [m]."""
    size = len(solution)
    q, k = sine_matrix(size - 2), np.pi * np.arange(1, size - 1)
    terms = [np.sqrt(2 / (size - 1)) * np.sin(np.outer(axis, k)) for axis in (x, y)]
    return np.einsum("mk,kl,ml->m", terms[0], q @ solution[1:-1, 1:-1] @ q.T, terms[1])


def observations() -> np.ndarray:
    """Rows x, y, value, noise, [m, 4]."""
    rng = np.random.default_rng(SEED)
    x, y = rng.uniform(0.02, 0.98, (2, COUNT)).round(4)
    _, solution = truth()
    noise = NOISE * solution.std()
    value = sine_series(solution, x, y) + noise * rng.standard_normal(COUNT)
    return np.stack([x, y, value, np.full(COUNT, noise)], axis=1)


def compare(path: Path) -> str:
    """One line: errors of mean and samples, and how often the truth lies within two standard deviations of the mean."""
    coefficient, _ = truth()
    with h5py.File(path) as file:
        mean, std, samples = file["mean"][...], file["std"][...], file["samples"][...]
    norm = np.linalg.norm(coefficient)
    of_mean = 100 * np.linalg.norm(mean - coefficient) / norm
    of_samples = 100 * np.mean([np.linalg.norm(sample - coefficient) / norm for sample in samples])
    inside = 100 * np.mean(np.abs(mean - coefficient) < 2 * std)
    return (
        f"relative l2 error of the mean {of_mean:.1f} %, of a sample {of_samples:.1f} %; "
        f"the truth is within two standard deviations at {inside:.0f} % of the nodes"
    )


def main() -> None:
    if len(sys.argv) > 1:
        print(compare(Path(sys.argv[1])))
        return
    with Path(__file__).with_name("observations.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["x", "y", "value", "noise"])
        writer.writerows([f"{number:.6g}" for number in row] for row in observations())


if __name__ == "__main__":
    main()
