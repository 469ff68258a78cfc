"""The Navier-Stokes solver against a pseudo-spectral Crank-Nicolson solver with a fixed step of 1e-4, on benchmark fields.

    python benchmarks/navier_stokes.py [--threads 1] [--quick]

Both sides are batched, in float64, with the same number of threads and the batch size that suits the cache; they take turns, and
the medians are compared. The fixed-step solver is timed on 50 of its 10,000 steps, scaled; its error comes from a run of all
steps. Both errors are against a pseudo-spectral Runge-Kutta run of the same initial fields (band-limited: interpolated by their
Fourier series) on 512 x 512 nodes, restricted to the nodes. Memory is the growth of the peak resident size, each case in a
process of its own. Prints Markdown tables and writes benchmarks/results/navier_stokes.json. --quick leaves out the thousand
fields and the runs of all fixed steps.
"""

import argparse
import json
import math
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddis.fields.bases import interpolation_matrix
from ddis.pde import make_problem
from ddis.pde.navier_stokes import benchmark_forcing

REPETITIONS = 5
FIELDS, ERROR_FIELDS, REFERENCE = 32, 4, 512
STEP, TIMED_STEPS = 1e-4, 50
VISCOSITY, TIME, FORCING = 1e-3, 1.0, 0.1


class PseudoSpectral:
    """w_t + v·∇w = ν ∇²w + f on S x S nodes: exact derivatives in Fourier space, 2/3 dealiasing."""

    def __init__(self, size: int):
        self.size = size
        frequency = torch.fft.fftfreq(size, 1 / size, dtype=torch.float64)
        kx, ky = torch.broadcast_tensors(2j * torch.pi * frequency[:, None], 2j * torch.pi * frequency[None, : size // 2 + 1])
        self.squared = -(kx**2 + ky**2).real
        inverse = torch.where(self.squared == 0, 0.0, -1 / self.squared)
        self.symbols = torch.stack([-ky * inverse, kx * inverse, kx, ky])[:, None]
        kept = frequency.abs() < size / 3
        self.kept = (kept[:, None] & kept[None, : size // 2 + 1]).double()
        self.forcing = torch.fft.rfft2(benchmark_forcing(size, FORCING))

    def rate(self, w_hat: Tensor) -> Tensor:
        """f - v·∇w, transformed."""
        v_x, v_y, w_x, w_y = torch.fft.irfft2(self.symbols * w_hat, s=(self.size, self.size))
        return self.forcing - self.kept * torch.fft.rfft2(torch.addcmul(v_x * w_x, v_y, w_y))

    def crank_nicolson(self, w: Tensor, steps: int) -> Tensor:
        """`steps` steps of 1e-4: viscous term by Crank-Nicolson, the others explicit."""
        damping = STEP / 2 * VISCOSITY * self.squared
        old, new = (1 - damping) / (1 + damping), STEP / (1 + damping)
        w_hat = torch.fft.rfft2(w)
        for _ in range(steps):
            w_hat = torch.addcmul(old * w_hat, new, self.rate(w_hat))
        return torch.fft.irfft2(w_hat, s=(self.size, self.size))

    def runge_kutta(self, w: Tensor, steps: int) -> Tensor:
        """w(T) in `steps` steps of fourth order with exact viscosity."""
        dt = TIME / steps
        half = torch.exp(-VISCOSITY * dt / 2 * self.squared)
        w_hat = torch.fft.rfft2(w)
        for _ in range(steps):
            a = dt * self.rate(w_hat)
            b = dt * self.rate(half * (w_hat + a / 2))
            c = dt * self.rate(half * w_hat + b / 2)
            d = dt * self.rate(half**2 * w_hat + half * c)
            w_hat = half**2 * (w_hat + a / 6) + half * (b + c) / 3 + d / 6
        return torch.fft.irfft2(w_hat, s=(self.size, self.size))


def refined(w: Tensor, size: int) -> Tensor:
    matrix = torch.from_numpy(interpolation_matrix(w.shape[-1], size))
    return matrix @ w @ matrix.T


def reference(w: Tensor) -> Tensor:
    """w(T) on the nodes of w [N, S, S], from a run on 512 x 512 nodes, one field at a time."""
    solver, stride = PseudoSpectral(REFERENCE), REFERENCE // w.shape[-1]
    steps = 96 * REFERENCE // 512
    return torch.cat([solver.runge_kutta(refined(field[None], REFERENCE), steps)[:, ::stride, ::stride] for field in w])


def error(u: Tensor, exact: Tensor) -> dict[str, float]:
    errors = (u - exact).flatten(1).norm(dim=1) / exact.flatten(1).norm(dim=1)
    return {"mean": errors.mean().item(), "largest": errors.max().item()}


def seconds(function: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def compare(size: int, quick: bool) -> dict[str, Any]:
    """Rates and errors of both solvers at S x S nodes."""
    problem, spectral = make_problem("navier-stokes", {}), PseudoSpectral(size)
    w = problem.sample_coefficients(range(FIELDS), size, seed=0)
    few = w[:ERROR_FIELDS]
    problem.solve(few), spectral.crank_nicolson(few, 2)
    ours, fixed = [], []
    for _ in range(REPETITIONS):
        ours.append(FIELDS / seconds(lambda: problem.solve(w)))
        fixed.append(len(few) / (seconds(lambda: spectral.crank_nicolson(few, TIMED_STEPS)) * TIME / STEP / TIMED_STEPS))
    exact = reference(few)
    steps = problem.steps(w)  # type: ignore[attr-defined]
    rates = statistics.median(ours), statistics.median(fixed)
    return {
        "resolution": size,
        "steps_mean": statistics.mean(steps),
        "steps_largest": max(steps),
        "fields_per_second": rates[0],
        "fixed_step_fields_per_second": rates[1],
        "ratio": rates[0] / rates[1],
        "error": error(problem.solve(few), exact),
        "fixed_step_error": None if quick else error(spectral.crank_nicolson(few, round(TIME / STEP)), exact),
        "minutes_for_50000": 50_000 / rates[0] / 60,
    }


def thousand(size: int = 128, count: int = 1000) -> dict[str, float]:
    """Standard deviations of a and u over 1,000 fields, with standard errors of the field-to-field variation."""
    problem = make_problem("navier-stokes", {})
    squares: dict[str, list[Tensor]] = {"a": [], "u": []}
    begin = time.perf_counter()
    for start in range(0, count, 50):
        a = problem.sample_coefficients(range(start, start + 50), size, seed=0)
        squares["a"].append((a**2).mean((1, 2)))
        squares["u"].append((problem.solve(a) ** 2).mean((1, 2)))
    result = {"fields": count, "seconds": time.perf_counter() - begin}
    for name, parts in squares.items():
        values = torch.cat(parts)
        result[f"std_{name}"] = values.mean().sqrt().item()
        result[f"std_{name}_se"] = values.std().item() / math.sqrt(count) / (2 * result[f"std_{name}"])
    return result


def resident(what: str) -> float:
    """MB of VmRSS (now) or VmHWM (peak) of this process."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) / 1024


def _measure(size: int, count: int, gradient: bool, threads: int) -> dict[str, Any]:
    torch.set_num_threads(threads)
    problem = make_problem("navier-stokes", {})
    warm = problem.sample_coefficients(range(2), 16, seed=0).requires_grad_(gradient)
    result = problem.solve(warm)
    if gradient:
        torch.autograd.grad(result.sum(), warm)
    a = problem.sample_coefficients(range(count), size, seed=0).requires_grad_(gradient)
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak starts anew
    before, begin = resident("VmRSS"), time.perf_counter()
    u = problem.solve(a)
    middle = time.perf_counter()
    if gradient:
        torch.autograd.grad(u.square().sum(), a)
    return {
        "resolution": size,
        "fields": count,
        "gradient": gradient,
        "steps_mean": statistics.mean(problem.steps(a.detach())),  # type: ignore[attr-defined]
        "megabytes": resident("VmHWM") - before,
        "seconds_forward": middle - begin,
        "seconds_backward": time.perf_counter() - middle if gradient else None,
    }


def memory(threads: int) -> list[dict[str, Any]]:
    cases = [(128, 16, False), (128, 128, False), (64, 1, True), (64, 8, True), (128, 1, True), (128, 8, True), (256, 1, True)]
    rows = []
    for case in cases:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            rows.append(pool.apply(_measure, (*case, threads)))
    return rows


def processor() -> str:
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if "model name" in line
    ]
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores"


def table(result: dict[str, Any]) -> str:
    lines = [
        f"{result['threads']} thread(s) on both sides, float64, {result['processor']}",
        "",
        "| nodes | solver | steps | fields/s | mean error | largest error |",
        "|---" * 6 + "|",
    ]
    for row in result["rows"]:
        ours, fixed = row["error"], row["fixed_step_error"] or {"mean": math.nan, "largest": math.nan}
        lines += [
            f"| {row['resolution']}² | ddis, stability rule | {row['steps_mean']:.1f} | {row['fields_per_second']:.1f} | "
            f"{ours['mean']:.1e} | {ours['largest']:.1e} |",
            f"| {row['resolution']}² | pseudo-spectral, Crank-Nicolson, dt = 1e-4 | 10000 | "
            f"{row['fixed_step_fields_per_second']:.3f} | {fixed['mean']:.1e} | {fixed['largest']:.1e} |",
            f"| {row['resolution']}² | ratio | | {row['ratio']:.0f} | | |",
        ]
    lines += ["", "| nodes | fields | gradient | steps | MB | s forward | s backward |", "|---" * 7 + "|"]
    for row in result["memory"]:
        backward = "" if row["seconds_backward"] is None else f"{row['seconds_backward']:.2f}"
        lines.append(
            f"| {row['resolution']}² | {row['fields']} | {'yes' if row['gradient'] else 'no'} | {row['steps_mean']:.1f} | "
            f"{row['megabytes']:.0f} | {row['seconds_forward']:.2f} | {backward} |"
        )
    if result["thousand"]:
        t = result["thousand"]
        lines += [
            "",
            f"{t['fields']} fields at 128²: std(a) {t['std_a']:.5f} ± {t['std_a_se']:.5f} (benchmark 0.26211), "
            f"std(u) {t['std_u']:.5f} ± {t['std_u_se']:.5f} (benchmark 0.25613), {t['seconds']:.0f} s.",
        ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="threads of both sides")
    parser.add_argument("--quick", action="store_true", help="without the thousand fields and the full fixed-step runs")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    result: dict[str, Any] = {
        "threads": arguments.threads,
        "processor": processor(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "fields_timed": FIELDS,
        "fields_of_errors": ERROR_FIELDS,
        "repetitions": REPETITIONS,
        "rows": [compare(size, arguments.quick) for size in (64, 128)],
        "memory": memory(arguments.threads),
        "thousand": None if arguments.quick else thousand(),
    }
    path = Path(__file__).parent / "results" / "navier_stokes.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(table(result))


if __name__ == "__main__":
    main()
