"""How often 95 % bootstrap intervals hold the truth, by the number of fields: `python benchmarks/intervals.py`, a minute.

Ratio of the means of two runs' errors, paired: log-normal, standard deviation 0.4 of what they share and 0.3 of what they do not;
the true ratio is 1. 400 studies of each size, seeds 0 to 399, so that a coverage of 95 % is known to 2.2 % (two standard errors).
"""

import numpy as np

from ddis.evaluation import bootstrap
from ddis.text import pipe_table

SIZES, STUDIES = (6, 8, 12, 16, 24, 32, 64), 400


def study(size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Errors of two runs on the same fields."""
    rng = np.random.default_rng(seed)
    shared = 0.4 * rng.standard_normal(size)
    return np.exp(shared + 0.3 * rng.standard_normal(size)), np.exp(shared + 0.3 * rng.standard_normal(size))


def row(size: int) -> list[str]:
    cells = [str(size)]
    for method in (bootstrap.estimate, bootstrap.bca):
        ends = np.array([method(np.divide, *study(size, seed))[1:] for seed in range(STUDIES)], float)
        covered = (ends[:, 0] <= 1) & (ends[:, 1] >= 1)
        cells += [f"{covered.mean():.3f}", f"{np.ptp(ends, axis=1).mean():.3f}"]
    return cells


if __name__ == "__main__":
    bootstrap.ENOUGH = 2
    bootstrap.DRAWS = 2000
    head = ["fields", "expanded percentiles: covers", "width", "BCa: covers", "width"]
    print(pipe_table(head, map(row, SIZES), [True] * 5))
