"""What the tests of `ddis solve` share: a small study with networks, and observations of a solution anywhere in the domain.

Networks are those of the tiny study, which learn nothing in 12 steps; what must be right about the posterior is tested with the
closed form (`exact`) and with the solver as operator. Seeds are stated where used.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from trainings import study_with_data

from ddis.grid import Space, square
from ddis.pde import make_problem
from ddis.sampling.base import Batch, Method, State
from ddis.stages import train

ROOT = Path(__file__).parents[1]
SIZE = 16
PLAIN = (Space(square(SIZE)),) * 2
GOOD = "x,y,value,noise\n0.5,0.5,1,0.1\n0.25,0.5,2,0.1\n"
sys.path += [str(ROOT / "docs" / "solve"), str(ROOT / "docs")]

import example  # noqa: E402


@contextmanager
def finished_study(folder: Path) -> Iterator[Path]:
    """results/tiny of a study with networks for 10 and 100 % of the pairs, in the working directory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("DDIS_TRACKING", "off")
        content = yaml.safe_load((ROOT / "tests" / "tiny.yaml").read_text())
        content["problems"] = {name: {"pde": name} for name in ("poisson", "helmholtz", "darcy", "navier-stokes")}
        content["runs"] |= {
            "exact": {"problems": ["poisson", "helmholtz"]},
            "kriging": {"method": "tikhonov", "operator": "solver"},
            "failing": {"method": "solving:Failing"},
            "guided": {"method": "fundps", "weight": 10, "steps": 20},
            "unguided": {"method": "fundps", "weight": 0, "steps": 20},
        }
        study = study_with_data(content)
        for model in ("prior", "operator-10", "operator-100", "joint-100"):
            train.run(study, "poisson", model)
        for problem in ("helmholtz", "darcy", "navier-stokes"):  # kriging through the solver needs no network
            (study.folder / "models" / problem).mkdir(parents=True)
        yield study.folder


class Failing(Method):
    """Draws white noise; every other chain is NaN, and all are where the first value is negative."""

    prior = None

    def sample(self, batch: Batch, prepared: None) -> Iterator[State]:
        x0 = batch.draw_white(*batch.shape).float()
        negative = bool((batch.observation.misfit(torch.zeros(1, 1)) > 0).any())
        x0[1 :: 1 if negative else 2] = torch.nan
        yield State(1, 1, 0.0, x0)


def points(count: int, seed: int = 5) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.random.default_rng(seed).uniform(0.02, 0.98, (2, count))
    return x, y


def observed(count: int, noise: float, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """A true coefficient [S, S], and rows x, y, value, noise of its solution; noise in units of the solution's deviation."""
    problem = make_problem("poisson", {})
    coefficient = problem.sample_coefficients([0], SIZE, seed)
    solution = problem.solve(coefficient)[0].numpy()
    x, y = points(count, seed)
    sigma = noise * solution.std()
    value = example.sine_series(solution, x, y) + sigma * np.random.default_rng(seed).standard_normal(count)
    return coefficient[0].numpy(), np.stack([x, y, value, np.full(count, sigma)], axis=1)


def write_points(rows: np.ndarray, path: Path) -> None:
    """Rows x, y, value, noise as a CSV file."""
    pd.DataFrame(rows, columns=["x", "y", "value", "noise"]).to_csv(path, index=False)


def solve_command(folder: Path, observations: Path, output: Path, *more: str, percent: str = "100") -> list[str]:
    model = folder / "models" / "poisson"
    fixed = ["solve", "--model", str(model), "--observations", str(observations), "--output", str(output)]
    return [*fixed, "--percent", percent, "--samples", "4", *more]
