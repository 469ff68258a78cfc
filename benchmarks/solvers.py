"""Solvers of poisson, helmholtz and darcy against SciPy's sparse direct solver, in fields per second.

    python benchmarks/solvers.py [--resolution 128] [--threads 1]

The other side assembles the matrix of every field (vectorised, with scipy.sparse.diags) and solves it with
scipy.sparse.linalg.spsolve; for the linear problems a second rate is given with one factorisation kept for all fields
(scipy.sparse.linalg.splu). Both sides have the same number of threads and take turns; the best of fifteen turns of each is
compared, as other work on the machine can only slow a turn down. Prints a Markdown table and writes
benchmarks/results/solvers.json.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy
import torch
from scipy import sparse
from scipy.sparse.linalg import splu, spsolve
from threadpoolctl import threadpool_limits

from ddis.pde import make_problem

REPETITIONS = 15
FIELDS = {"poisson": 128, "helmholtz": 128, "darcy": 16}
REFERENCE_FIELDS = 3


def assemble(faces_x: np.ndarray, faces_y: np.ndarray, shift: float = 0.0) -> sparse.csc_matrix:
    """Matrix [M², M²] of -∇·(a ∇u) - shift u, with a on the faces [M+1, M] and [M, M+1], h = 1/(M+1)."""
    interior = faces_x.shape[1]
    scale = (interior + 1) ** 2
    diagonal = scale * (faces_x[1:] + faces_x[:-1] + faces_y[:, 1:] + faces_y[:, :-1]) - shift
    along_x = -scale * faces_x[1:-1].ravel()
    along_y = -scale * faces_y[:, 1:]
    along_y[:, -1] = 0.0
    along_y = along_y.ravel()[:-1]
    offsets = [0, 1, -1, interior, -interior]
    return sparse.diags([diagonal.ravel(), along_y, along_y, along_x, along_x], offsets, format="csc")


def harmonic(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return 2 * a * b / (a + b)


def matrix_of(pde: str, field: np.ndarray) -> sparse.csc_matrix:
    """Matrix of the equation for one coefficient field [S, S]; for poisson and helmholtz with the opposite sign."""
    if pde == "darcy":
        return assemble(harmonic(field[1:, 1:-1], field[:-1, 1:-1]), harmonic(field[1:-1, 1:], field[1:-1, :-1]))
    interior = field.shape[0] - 2
    return assemble(np.ones((interior + 1, interior)), np.ones((interior, interior + 1)), 1.0 if pde == "helmholtz" else 0.0)


def right_side(pde: str, field: np.ndarray) -> np.ndarray:
    return np.ones((field.shape[0] - 2) ** 2) if pde == "darcy" else -field[1:-1, 1:-1].ravel()


def rate(function: Callable[[], Any], count: int) -> float:
    begin = time.perf_counter()
    function()
    return count / (time.perf_counter() - begin)


def compare(pde: str, resolution: int) -> dict[str, Any]:
    """One row of the table."""
    problem = make_problem(pde, {})
    fields = problem.sample_coefficients(range(FIELDS[pde]), resolution, seed=0)
    few = fields[:REFERENCE_FIELDS].numpy()

    def reference() -> list[np.ndarray]:
        return [spsolve(matrix_of(pde, field), right_side(pde, field)) for field in few]

    factor = splu(matrix_of(pde, few[0])) if problem.linear else None
    exact, ours = np.stack(reference()), problem.solve(fields)[: len(few), 1:-1, 1:-1].flatten(1).numpy()
    rates: dict[str, list[float]] = {"ours": [], "spsolve": [], "factorised": []}
    for _ in range(REPETITIONS):
        rates["ours"].append(rate(lambda: problem.solve(fields), len(fields)))
        rates["spsolve"].append(rate(reference, len(few)))
        if factor is not None:
            rates["factorised"].append(rate(lambda: [factor.solve(right_side(pde, field)) for field in few], len(few)))
    best = {name: max(values, default=None) for name, values in rates.items()}
    assert best["ours"] is not None and best["spsolve"] is not None
    return {
        "pde": pde,
        "fields_per_second": best["ours"],
        "spsolve_fields_per_second": best["spsolve"],
        "factorised_once_fields_per_second": best["factorised"],
        "ratio": best["ours"] / best["spsolve"],
        "largest_difference": float(np.abs(ours - exact).max() / np.abs(exact).max()),
        "minutes_for_50000": 50_000 / best["ours"] / 60,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--resolution", type=int, default=128, help="nodes per side")
    parser.add_argument("--threads", type=int, default=1, help="threads of both sides")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with threadpool_limits(arguments.threads):
        rows = [compare(pde, arguments.resolution) for pde in FIELDS]
    result = {
        "resolution": arguments.resolution,
        "threads": arguments.threads,
        "repetitions": REPETITIONS,
        "processor": processor(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "scipy": scipy.__version__},
        "rows": rows,
    }
    path = Path(__file__).parent / "results" / "solvers.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"{arguments.resolution} x {arguments.resolution}, {arguments.threads} thread(s) on both sides, {processor()}\n")
    print("| pde | fields/s | spsolve fields/s | ratio | factorised once, fields/s | largest difference | 50,000 fields |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        kept = row["factorised_once_fields_per_second"]
        print(
            f"| {row['pde']} | {row['fields_per_second']:.0f} | {row['spsolve_fields_per_second']:.1f} | {row['ratio']:.0f} "
            f"| {'' if kept is None else f'{kept:.0f}'} | {row['largest_difference']:.0e} | {row['minutes_for_50000']:.1f} min |"
        )


def processor() -> str:
    """Name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
