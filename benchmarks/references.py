"""Which posteriors Markov chains can be certified for: noise, acceptance, R-hat, effective draws per solve, minutes per case.

    python benchmarks/references.py [quick] [PROBLEM ...] [NOISE ...]

Log-normal and two-valued darcy, navier-stokes, poisson-squared and darcy-facies on 32 x 32 nodes with 128 observations (quick:
16 x 16 with 60), noise of 30, 10 and 5 % of std(u), 16 chains, eight fields each, four at a time. Every field ends when it has
converged, or with its budget of steps. Poisson comes first, where the posterior is known: error of mean and standard deviation
of two fields against the closed form, in standard errors of the chains. Writes benchmarks/results/references.md, a row with each
group of fields; rows of named problems (and noises, in percent) take the place of those that are there. Minutes are of
processor time. Of two-valued darcy at 5 %, poisson-squared below 30 % and darcy-facies rows are still to be made.
"""

import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ddis.files import write_text
from ddis.observe.base import Functionals
from ddis.observe.nodes import draw_nodes
from ddis.pde import make_problem
from ddis.randomness import generator
from ddis.references.chains import Budget, Chains, Reference
from ddis.references.latent import Latent

SEED, FIELDS, TOGETHER = 7, 8, 4
RESULT = Path(__file__).parent / "results" / "references.md"
PROBLEMS: dict[str, tuple[str, dict[str, Any]]] = {
    "darcy, log-normal": ("darcy", {"coefficient": "log-normal"}),
    "navier-stokes": ("navier-stokes", {}),
    "darcy, two-valued": ("darcy", {}),
    "poisson-squared": ("poisson-squared", {}),
    "darcy-facies": ("darcy-facies", {}),
}
NOISES = (0.3, 0.1, 0.05)
WALKED = ("darcy, two-valued", "darcy-facies")  # problems whose chains walk; they burn in for 400 steps and have 20,000
EXACT = 2  # fields that are compared with the closed form
HEAD = [
    *("problem", "noise, % of std(u)", "converged", "steps", "acceptance", "step b", "R-hat", "effective draws"),
    *("per 1,000 solves", "Monte Carlo error of the mean, %", "minutes per field"),
]


def make_latent(pde: str, parameters: dict[str, Any], size: int, observed: int, noise: float, fields: int = FIELDS) -> Latent:
    """Fields and observations, all from SEED."""
    problem = make_problem(pde, parameters, size)
    grid = problem.coefficient_space(size).grid
    scale = float(problem.solve(problem.sample_coefficients(range(100, 164), size, SEED)).std())
    index = torch.stack([torch.from_numpy(draw_nodes(grid, observed, SEED, f)) for f in range(fields)])
    u = problem.solve(problem.sample_coefficients(range(fields), size, SEED)).flatten(1).gather(1, index)
    error = np.stack([generator(SEED, "noise", f).standard_normal(observed) for f in range(fields)])
    variance = torch.full(index.shape, (noise * scale) ** 2, dtype=torch.float64)
    functionals = Functionals(torch.arange(size**2)[:, None], None, size**2)
    return Latent(problem, functionals, index, u + noise * scale * torch.from_numpy(error), variance)


def measure(latent: Latent, budget: Budget) -> Iterator[tuple[list[Reference], float]]:
    """References of the fields that have ended, and seconds per field, with each group of fields."""
    ends: list[Reference] = []
    begin, count = time.process_time(), len(latent.values)
    for first in range(0, count, TOGETHER):
        group = slice(first, first + TOGETHER)
        some = replace(latent, index=latent.index[group], values=latent.values[group], variance=latent.variance[group])
        for state, found in Chains(some, budget, SEED, range(count)[group]).run():
            for field, end in found:
                print(f"field {first + field}: {end.steps} steps, {end.diagnosis}", flush=True)
                ends.append(end)
            if state.step % 250 == 0:
                print(f"{len(state.row)} fields at step {state.step}, {time.process_time() - begin:.0f} s", flush=True)
        yield ends, (time.process_time() - begin) / len(ends)


def row(name: str, noise: float, ends: list[Reference], seconds: float, budget: Budget) -> list[str]:
    told = [end.diagnosis for end in ends]
    ess = [min(each.ess_bulk, each.ess_tail) for each in told]
    solves = [budget.chains * (budget.burn_in + end.steps) for end in ends]
    errors = [100 * float(end.std.norm() / end.mean.norm()) / max(worth, 1) ** 0.5 for end, worth in zip(ends, ess, strict=True)]
    return [
        name,
        f"{100 * noise:g}",
        f"{sum(each.converged for each in told)} of {len(told)}",
        f"{max(end.steps for end in ends)}",
        f"{np.mean([end.acceptance for end in ends]):.2f}",
        f"{np.mean([end.size for end in ends]):.2f}",
        f"{max(each.r_hat for each in told):.3f}",
        f"{min(ess):.0f}",
        f"{1000 * min(e / s for e, s in zip(ess, solves, strict=True)):.3g}",
        f"{max(errors):.2g}" if np.isfinite(errors).all() else "",  # of a mean of 0
        f"{seconds / 60:.1f}",
    ]


def against_closed_form(latent: Latent, budget: Budget) -> str:
    """Root mean square deviations of mean and standard deviation at the nodes, in standard errors of the chains."""
    modes = len(latent.modes)
    unit = torch.eye(modes, dtype=torch.float64).expand(EXACT, -1, -1)
    jacobian = latent.predict(unit).transpose(1, 2)
    covariance = torch.linalg.inv(torch.eye(modes) + jacobian.transpose(1, 2) @ (jacobian / latent.variance[..., None]))
    mean = (covariance @ jacobian.transpose(1, 2) @ (latent.values / latent.variance)[..., None])[..., 0]
    found = []
    for _, ended in Chains(latent, budget, SEED, range(EXACT)).run():
        for field, end in ended:
            std = latent.coefficient(torch.linalg.cholesky(covariance[field]).T).square().sum(dim=0).sqrt()
            draws = end.diagnosis.ess_bulk
            off = (end.mean - latent.coefficient(mean[field])) / std * draws**0.5
            wide = (end.std / std - 1) * (2 * draws) ** 0.5
            found.append([float(part.square().mean().sqrt()) for part in (off, wide)])
    mean_off, std_off = np.mean(found, axis=0)
    return (
        f"Poisson with 5 % noise against the closed form, root mean square over the nodes in standard errors of the chains (1 if "
        f"all is right): mean {mean_off:.2f}, standard deviation {std_off:.2f}."
    )


def opening(size: int, observed: int, budget: Budget) -> list[str]:
    """What stands above the rows."""
    how = (
        f"{size} x {size} nodes, {observed} observations, {FIELDS} fields, {budget.chains} chains, {budget.burn_in} steps of "
        f"burn-in and at most {budget.steps} after it (where the coefficient jumps: 400, and 20000); one core. R-hat, "
        "effective draws and errors are those of the worst field."
    )
    exact = against_closed_form(make_latent("poisson", {}, size, observed, 0.05, EXACT), budget)
    return [how, "", exact, "", "| " + " | ".join(HEAD) + " |", "|---" * len(HEAD) + "|"]


def main() -> None:
    torch.set_num_threads(1)
    quick, named = "quick" in sys.argv[1:], [name for name in sys.argv[1:] if name in PROBLEMS]
    chosen = [float(name) / 100 for name in sys.argv[1:] if name not in PROBLEMS and name != "quick"]
    size, observed = (16, 60) if quick else (32, 128)
    budget = Budget(burn_in=1000, steps=2000 if quick else 3000)
    lines = RESULT.read_text(encoding="utf-8").splitlines() if named or chosen else opening(size, observed, budget)
    print("\n".join(lines), flush=True)
    for name, noise in product(named or PROBLEMS, chosen or NOISES):
        own = replace(budget, burn_in=400, steps=20000) if name in WALKED else budget
        before = [line for line in lines if not line.startswith(f"| {name} | {100 * noise:g} |")]
        for ends, seconds in measure(make_latent(*PROBLEMS[name], size, observed, noise), own):
            lines = [*before, "| " + " | ".join(row(name, noise, ends, seconds, own)) + " |"]
            print(lines[-1], flush=True)
            if not quick:
                write_text(RESULT, "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
