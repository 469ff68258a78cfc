"""Pictures, plots and tables of docs/problems.md.

    python benchmarks/problems_page.py [--tables]

Draws a few fields of every problem on 64 x 64 nodes and the convergence of every solver into docs/problems/*.png, and rewrites
what stands between the markers `<!-- name:begin -->` and `<!-- name:end -->` of the page: orders of convergence, and the speed
from benchmarks/results/{solvers,navier_stokes}.json. The errors of the convergence plots go to
benchmarks/results/convergence.json. --tables rewrites the tables from the results that are there, and draws and measures
nothing. One thread, about two minutes.

Convergence cases: the manufactured and exact solutions of the tests, and random fields of the benchmark on 1025 x 1025 nodes
(the L-shaped domain 257 x 257, burgers 512), taken at every n-th node, whose solutions are compared at the nodes of the coarse
grid. Errors are relative l2, root mean square over the fields.
"""

import argparse
import json
import re
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from navier_stokes import PseudoSpectral, refined
from torch import Tensor

from ddis.evaluation.figures.fields import pairs
from ddis.evaluation.figures.style import to_png
from ddis.pde import make_problem
from ddis.pde.base import Problem
from ddis.pde.darcy import solve_flux
from ddis.text import pipe_table

ROOT = Path(__file__).parents[1]
PAGE, PICTURES, RESULTS = ROOT / "docs" / "problems.md", ROOT / "docs" / "problems", ROOT / "benchmarks" / "results"
SHOWN_NODES, SHOWN_FIELDS, PICTURE_DPI, PLOT_DPI = 64, 4, 90, 110
FINE, FINE_FIELDS = 1025, 4
MODES = [(1, 0.5, 0.3), (2, -0.2, 0.25)]  # k, A, B of Σ A cos 2πkx + B sin 2πkx
SIZES = (17, 33, 65, 129)
COLOURS, SHAPES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7"), "osD^"
SHOWN: dict[str, tuple[str, dict[str, Any]]] = {
    "poisson": ("poisson", {}),
    "helmholtz": ("helmholtz", {}),
    "helmholtz-8": ("helmholtz", {"k": 8.0}),
    "darcy": ("darcy", {}),
    "darcy-log-normal": ("darcy", {"coefficient": "log-normal"}),
    "navier-stokes": ("navier-stokes", {}),
    "poisson-rectangle": ("poisson", {"aspect": 3.0}),
    "poisson-l-shape": ("poisson-l-shape", {}),
    "darcy-source": ("darcy-source", {}),
    "darcy-facies": ("darcy-facies", {}),
    "poisson-squared": ("poisson-squared", {}),
    "burgers": ("burgers", {}),
}
TITLES = {
    "poisson": "poisson: ∇²u = a",
    "helmholtz": "helmholtz, k = 1: ∇²u + k²u = a",
    "helmholtz-8": "helmholtz, k = 8: ∇²u + k²u = a",
    "darcy": "darcy, two-valued (3 and 12): -∇·(a ∇u) = 1",
    "darcy-log-normal": "darcy, log-normal (scale 1): -∇·(a ∇u) = 1",
    "navier-stokes": "navier-stokes, ν = 0.001, T = 1: a = w(0), u = w(T)",
    "poisson-rectangle": "poisson on [0, 3] x [0, 1]: ∇²u = a",
    "poisson-l-shape": "poisson on an L-shaped domain: ∇²u = a",
    "darcy-source": "darcy with unknown sources: -∇·(k ∇u) = f, a = (k, f)",
    "darcy-facies": "darcy-facies, sand of median 10 in shale of 1: -∇·(a ∇u) = 1",
    "poisson-squared": "poisson-squared: ∇²u = a, v = u²",
    "burgers": "burgers, ν = 0.01: a = u(x, 0), u(x, t)",
}

# {"problem", "case", "step" (h or dt), "steps" [n], "errors" [n], "order" (of the scheme, where the theory gives one)}
Curve = dict[str, Any]


def curve(problem: str, case: str, steps: Sequence[float], errors: Sequence[float], order: int | None, step: str = "h") -> Curve:
    return {"problem": problem, "case": case, "step": step, "steps": list(steps), "errors": list(errors), "order": order}


def relative(u: Tensor, exact: Tensor) -> float:
    """Relative l2 error of fields [N, S, S], root mean square over N."""
    return float(((u - exact).flatten(1).norm(dim=1) / exact.flatten(1).norm(dim=1)).square().mean().sqrt())


def grid(size: int) -> tuple[Tensor, Tensor]:
    x = torch.linspace(0, 1, size, dtype=torch.float64)
    return x[:, None], x[None, :]


def manufactured_poisson(size: int) -> float:
    """u = exp(x) sin πx sin 2πy."""
    pi = torch.pi
    x, y = grid(size)
    u = x.exp() * torch.sin(pi * x) * torch.sin(2 * pi * y)
    u_xx = x.exp() * ((1 - pi**2) * torch.sin(pi * x) + 2 * pi * torch.cos(pi * x)) * torch.sin(2 * pi * y)
    return relative(make_problem("poisson", {}).solve(u_xx - 4 * pi**2 * u)[None], u[None])


def manufactured_helmholtz(size: int, k: float) -> float:
    """u = x (1 - x) sin πy exp(y)."""
    pi = torch.pi
    x, y = grid(size)
    u = x * (1 - x) * torch.sin(pi * y) * y.exp()
    u_xx = -2 * torch.sin(pi * y) * y.exp() * torch.ones_like(x)
    u_yy = x * (1 - x) * y.exp() * ((1 - pi**2) * torch.sin(pi * y) + 2 * pi * torch.cos(pi * y))
    return relative(make_problem("helmholtz", {"k": k}).solve(u_xx + u_yy + k**2 * u)[None], u[None])


def manufactured_darcy(size: int) -> float:
    """a = exp(sin πx + xy), u = sin πx sin 2πy."""
    a, u, source = darcy_fields(size)
    return relative(solve_flux(a, source, smooth=True)[None], u[None])


def manufactured_darcy_source(size: int) -> float:
    """The same, with conductivity and source as two channels."""
    a, u, source = darcy_fields(size)
    return relative(make_problem("darcy-source", {}).solve(torch.stack([a, source]))[None], u[None])


def darcy_fields(size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Conductivity, solution and the source to match."""
    pi = torch.pi
    x, y = grid(size)
    a = torch.exp(torch.sin(pi * x) + x * y)
    u = torch.sin(pi * x) * torch.sin(2 * pi * y)
    u_x, u_y = pi * torch.cos(pi * x) * torch.sin(2 * pi * y), 2 * pi * torch.sin(pi * x) * torch.cos(2 * pi * y)
    return a, u, -a * ((pi * torch.cos(pi * x) + y) * u_x + x * u_y - 5 * pi**2 * u)


def nodes_of(problem: Problem, size: int) -> tuple[Tensor, Tensor]:
    """Coordinates of the nodes of a problem's solutions."""
    x, y = (torch.from_numpy(axis) for axis in problem.solution_space(size).grid.coordinates())
    return x[:, None], y[None, :]


def manufactured_rectangle(size: int) -> float:
    """u = exp(x/3) sin πx/3 sin 2πy on [0, 3] x [0, 1]."""
    problem, k = make_problem("poisson", {"aspect": 3.0}), torch.pi / 3
    x, y = nodes_of(problem, size)
    wave = torch.sin(2 * torch.pi * y)
    u = (x / 3).exp() * torch.sin(k * x) * wave
    u_xx = (x / 3).exp() * ((1 / 9 - k**2) * torch.sin(k * x) + 2 * k / 3 * torch.cos(k * x)) * wave
    return relative(problem.solve(u_xx - 4 * torch.pi**2 * u)[None], u[None])


def manufactured_l_shape(size: int) -> float:
    """u = exp(x) sin 2πx sin 2πy, which vanishes on all of the boundary."""
    problem, k = make_problem("poisson-l-shape", {}), 2 * torch.pi
    x, y = nodes_of(problem, size)
    u = x.exp() * torch.sin(k * x) * torch.sin(k * y)
    u_xx = x.exp() * ((1 - k**2) * torch.sin(k * x) + 2 * k * torch.cos(k * x)) * torch.sin(k * y)
    inside = torch.from_numpy(problem.solution_space(size).grid.nodes)
    return relative(problem.solve(u_xx - k**2 * u)[None], (inside * u)[None])


def singular_l_shape(size: int) -> float:
    """u = w s, w = sin πx sin πy, and s = r^(2/3) sin(2φ/3) harmonic, zero on both sides of the re-entrant corner."""
    problem, pi = make_problem("poisson-l-shape", {}), torch.pi
    x, y = nodes_of(problem, size)
    dx, dy = x - 0.5, y - 0.5
    r, phi = torch.hypot(dx, dy), torch.remainder(torch.atan2(dy, dx) - pi / 2, 2 * pi)
    s, slope = r ** (2 / 3) * torch.sin(2 * phi / 3), 2 / 3 * r ** (-1 / 3)
    s_x, s_y = -slope * torch.cos(phi / 3), -slope * torch.sin(phi / 3)
    w, w_x, w_y = (f(pi * x) * g(pi * y) for f, g in ((torch.sin, torch.sin), (torch.cos, torch.sin), (torch.sin, torch.cos)))
    source = torch.nan_to_num(2 * pi * (w_x * s_x + w_y * s_y) - 2 * pi**2 * w * s)
    inside = torch.from_numpy(problem.solution_space(size).grid.nodes)
    return relative(problem.solve(source)[None], (inside * w * s)[None])


def random_fields(pde: str, parameters: dict[str, Any], fine_size: int = FINE, sizes: Sequence[int] = SIZES) -> list[float]:
    """Errors at `sizes` against the fine grid."""
    problem = make_problem(pde, parameters)
    a = problem.sample_coefficients(range(FINE_FIELDS), fine_size, seed=0)
    fine = problem.solve(a)
    errors = []
    for size in sizes:
        n = fine_size // size if problem.basis == "fourier" else (fine_size - 1) // (size - 1)
        coarse = problem.solve(a[(..., *[slice(None, None, n)] * len(problem.coefficient_space(size).grid.shape))].contiguous())
        errors.append(relative(coarse, fine[..., ::n, ::n]))
    return errors


def cole_hopf(x: Tensor, t: float, viscosity: float) -> Tensor:
    """u(x, t) of Burgers' equation for the two-mode initial condition, by quadrature over the line.

    u = ∫ (x - y)/t w dy / ∫ w dy with w = exp(-(U(y) + (x - y)²/2t) / 2ν) and U' = u(·, 0).
    """
    reach = 12 * (2 * viscosity * t) ** 0.5 + 1.5
    y = x[:, None] + torch.linspace(-reach, reach, 40001, dtype=torch.float64)
    potential = torch.zeros_like(y)
    for k, a, b in MODES:
        potential += (a * torch.sin(2 * torch.pi * k * y) + b * (1 - torch.cos(2 * torch.pi * k * y))) / (2 * torch.pi * k)
    weight = (-(potential + (x[:, None] - y) ** 2 / (2 * t)) / (2 * viscosity)).softmax(dim=1)
    return ((x[:, None] - y) / t * weight).sum(dim=1)


def burgers_against_cole_hopf(size: int) -> float:
    """At every sixteenth of the circle, at t = 1/2 and 1."""
    x, problem = torch.arange(size, dtype=torch.float64) / size, make_problem("burgers", {})
    initial = sum(a * torch.cos(2 * torch.pi * k * x) + b * torch.sin(2 * torch.pi * k * x) for k, a, b in MODES)
    assert isinstance(initial, Tensor)
    found = problem.solve(initial)[:: size // 16][:, [size // 2, size]]
    exact = torch.stack([cole_hopf(x[:: size // 16], t, 0.01) for t in (0.5, 1.0)], dim=1)
    return relative(found[None], exact[None])


def navier_stokes_in_space() -> list[float]:
    """Two-mode vorticity on 16, 32, 64 and 128 nodes in 64 steps, against a pseudo-spectral run on 256 in as many."""

    def initial(size: int) -> Tensor:
        x = 2 * torch.pi * torch.arange(size, dtype=torch.float64) / size
        x, y = x[:, None], x[None, :]
        return (torch.sin(x) * torch.cos(2 * y) + torch.cos(x + y) + 0.5 * torch.sin(3 * y - x))[None]

    fine, problem = PseudoSpectral(256).runge_kutta(initial(256), 64), make_problem("navier-stokes", {"step": 1 / 64})
    return [relative(problem.solve(initial(size)), fine[:, :: 256 // size, :: 256 // size]) for size in (16, 32, 64, 128)]


def navier_stokes_in_time(steps: Sequence[int]) -> list[float]:
    """Random initial fields of 16 nodes on 32, against 128 steps on the same grid."""
    w = refined(make_problem("navier-stokes", {}).sample_coefficients(range(2), 16, seed=3), 32)

    def end(count: int) -> Tensor:
        return make_problem("navier-stokes", {"step": 1 / count}).solve(w)

    exact = end(128)
    return [relative(end(count), exact) for count in steps]


def convergence() -> list[Curve]:
    """Every curve of the plots."""
    h = [1 / (size - 1) for size in SIZES]
    dirichlet: list[tuple[str, str, Callable[[int], float]]] = [
        ("poisson", "manufactured", manufactured_poisson),
        ("helmholtz", "manufactured, k = 1", lambda size: manufactured_helmholtz(size, 1.0)),
        ("helmholtz", "manufactured, k = 6", lambda size: manufactured_helmholtz(size, 6.0)),
        ("darcy", "manufactured, smooth a", manufactured_darcy),
    ]
    curves = [curve(problem, case, h, [error(size) for size in SIZES], 2) for problem, case, error in dirichlet]
    for name in ("poisson", "helmholtz", "darcy-log-normal", "darcy"):
        pde, parameters = SHOWN[name]
        case = {"darcy-log-normal": "random, log-normal", "darcy": "random, two-valued"}.get(name, "random fields")
        curves.append(curve(pde, case, h, random_fields(pde, parameters), None))
    curves.append(curve("navier-stokes", "in space, smooth", [1 / s for s in (16, 32, 64, 128)], navier_stokes_in_space(), 4))
    counts = (2, 4, 8, 16)
    curves.append(curve("navier-stokes", "in time, random", [1 / n for n in counts], navier_stokes_in_time(counts), 4, "dt"))
    return curves + other_spaces()


def other_spaces() -> list[Curve]:
    """Curves of the rectangle, the L-shaped domain, the two channels and space-time."""
    h, periodic = [1 / (size - 1) for size in SIZES], (32, 64, 128, 256)
    manufactured: list[tuple[str, str, Callable[[int], float], int | None]] = [
        ("poisson", "manufactured, rectangle", manufactured_rectangle, 2),
        ("poisson-l-shape", "manufactured, smooth", manufactured_l_shape, 2),
        ("poisson-l-shape", "manufactured, singular at the corner", singular_l_shape, None),
        ("darcy-source", "manufactured, smooth a", manufactured_darcy_source, 2),
    ]
    curves = [curve(problem, case, h, [error(size) for size in SIZES], order) for problem, case, error, order in manufactured]
    short = SIZES[:3]  # the solver keeps a matrix of about S x S, whose making takes S solutions
    curves.append(curve("poisson-l-shape", "random fields", h[:3], random_fields("poisson-l-shape", {}, 257, short), None))
    curves.append(curve("darcy-source", "random fields", h, random_fields("darcy-source", {}), None))
    curves.append(curve("darcy-facies", "random fields", h, random_fields("darcy-facies", {}), None))
    curves.append(curve("poisson-squared", "random fields", h, random_fields("poisson-squared", {}), None))
    steps = [1 / size for size in periodic]
    curves.append(curve("burgers", "two modes, Cole-Hopf", steps, [burgers_against_cole_hopf(size) for size in periodic], 2))
    curves.append(curve("burgers", "random fields", steps[:3], random_fields("burgers", {}, 512, periodic[:3]), None))
    return curves


def orders(c: Curve) -> list[float]:
    points = list(zip(c["steps"], c["errors"], strict=True))
    return [float(np.log(e1 / e2) / np.log(s1 / s2)) for (s1, e1), (s2, e2) in pairwise(points)]


def convergence_plot(problem: str, curves: Sequence[Curve]) -> Figure:
    """Error against spacing, one panel for each kind of step, with the order of the last refinement in the legend."""
    kinds = list(dict.fromkeys(c["step"] for c in curves))
    figure = Figure(figsize=(4.4 * len(kinds), 3.5), layout="constrained")
    for ax, kind in zip(np.atleast_1d(np.asarray(figure.subplots(1, len(kinds)))), kinds, strict=True):
        drawn = [c for c in curves if c["step"] == kind]
        for c, colour, shape in zip(drawn, COLOURS, SHAPES, strict=False):
            label = f"{c['case']}: order {orders(c)[-1]:.2f}"
            ax.loglog(c["steps"], c["errors"], marker=shape, color=colour, lw=1.5, ms=5, label=label)
        for order in sorted({c["order"] for c in drawn if c["order"]}):
            slope_below(ax, drawn, order)
        steps = drawn[0]["steps"]
        ax.set_xticks(steps, [f"1/{round(1 / step)}" for step in steps])
        ax.xaxis.minorticks_off()
        ax.set(xlabel="node spacing $h$" if kind == "h" else "time step $dt$", ylabel="relative $l^2$ error")
        ax.grid(alpha=0.25)
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False, fontsize=8, loc="upper left")
        low, high = ax.get_ylim()
        ax.set_ylim(low, high * (high / low) ** (0.09 * (len(drawn) + 1)))
    figure.suptitle(f"{problem}: error of the solver", fontsize=10)
    return figure


def slope_below(ax: Any, curves: Sequence[Curve], order: int) -> None:
    """A dashed line of the scheme's order, a little below all curves at the finest step."""
    steps = np.array(curves[0]["steps"])
    low = 0.45 * min(c["errors"][-1] for c in curves)
    ax.loglog(steps, low * (steps / steps[-1]) ** order, "--", color="0.5", lw=1, label=f"slope {order}")


def draw_pairs(name: str) -> None:
    """The picture of a few pairs of a problem."""
    pde, parameters = SHOWN[name]
    problem = make_problem(pde, parameters)
    a = problem.sample_coefficients(range(SHOWN_FIELDS), SHOWN_NODES, seed=0)
    figure = pairs(a.numpy(), problem.solve(a).numpy(), TITLES[name], problem.spaces(SHOWN_NODES))
    (PICTURES / f"{name}.png").write_bytes(to_png(figure, PICTURE_DPI))


def draw() -> None:
    """Measures the convergence and draws every picture of the page."""
    torch.set_num_threads(1)
    PICTURES.mkdir(exist_ok=True)
    for name in SHOWN:
        draw_pairs(name)
    curves = convergence()
    (RESULTS / "convergence.json").write_text(json.dumps(curves, indent=1) + "\n", encoding="utf-8")
    for problem in dict.fromkeys(c["problem"] for c in curves):
        figure = convergence_plot(problem, [c for c in curves if c["problem"] == problem])
        (PICTURES / f"{problem}-convergence.png").write_bytes(to_png(figure, PLOT_DPI))


def read(name: str) -> Any:
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def orders_table(curves: Sequence[Curve]) -> str:
    """Errors at every step, and the orders between them."""
    rows = [["case", "step", "relative l2 errors", "observed orders"]]
    for c in curves:
        steps = f"{c['step']} = " + ", ".join(f"1/{round(1 / step)}" for step in c["steps"])
        errors, between = ", ".join(f"{e:.1e}" for e in c["errors"]), ", ".join(f"{o:.2f}" for o in orders(c))
        rows.append([c["case"], steps, errors, between])
    return pipe_table(rows[0], rows[1:])


def threads(count: int) -> str:
    return f"{count} thread{'' if count == 1 else 's'} on both sides"


def sparse_speed(result: dict[str, Any]) -> str:
    """Direct and iterative solvers against SciPy's sparse direct solver."""
    size = result["resolution"]
    head = f"{size} x {size} nodes, {threads(result['threads'])}, {result['processor']}:"
    names = ["problem", "ddis, fields/s", "spsolve, fields/s", "ratio", "splu, factorised once", "largest difference"]
    rows = [[*names, "50,000 fields"]]
    for row in result["rows"]:
        kept = row["factorised_once_fields_per_second"]
        rates = [f"{row['fields_per_second']:.0f}", f"{row['spsolve_fields_per_second']:.1f}"]
        ratios = [f"**{row['ratio']:.3g}**", "" if kept is None else f"{kept:.0f}"]
        rest = [f"{row['largest_difference']:.0e}", f"{row['minutes_for_50000']:.1f} min"]
        rows.append([row["pde"], *rates, *ratios, *rest])
    return f"{head}\n\n{pipe_table(rows[0], rows[1:])}"


def fixed_step_speed(result: dict[str, Any]) -> str:
    """Navier-Stokes against the pseudo-spectral solver with a fixed step, with both errors; and the memory of gradients."""
    rows = [["nodes", "solver", "steps", "fields/s", "mean error", "largest error", "ratio", "50,000 fields"]]
    for row in result["rows"]:
        size, ours, fixed = f"{row['resolution']} x {row['resolution']}", row["error"], row["fixed_step_error"]
        own = [f"{row['steps_mean']:.1f}", f"{row['fields_per_second']:.3g}", f"{ours['mean']:.1e}", f"{ours['largest']:.1e}"]
        rows.append([size, "ddis", *own, f"**{row['ratio']:.0f}**", f"{row['minutes_for_50000']:.1f} min"])
        errors = ["", ""] if fixed is None else [f"{fixed['mean']:.1e}", f"{fixed['largest']:.1e}"]
        rows.append([size, "pseudo-spectral, dt = 1e-4", "10,000", f"{row['fixed_step_fields_per_second']:.2g}", *errors, "", ""])
    kept = [["nodes", "fields", "steps", "memory, MB", "s forward", "s backward"]]
    for row in result["memory"]:
        if row["gradient"]:
            size = f"{row['resolution']} x {row['resolution']}"
            seconds = [f"{row['seconds_forward']:.2f}", f"{row['seconds_backward']:.2f}"]
            kept.append([size, str(row["fields"]), f"{row['steps_mean']:.1f}", f"{row['megabytes']:.0f}", *seconds])
    head = f"navier-stokes, ν = 1e-3, T = 1, {threads(result['threads'])}, {result['processor']}:"
    errors, gradients = pipe_table(rows[0], rows[1:]), pipe_table(kept[0], kept[1:])
    return f"{head}\n\n{errors}\n\nMemory and time of a gradient with respect to w(0):\n\n{gradients}"


def replacement(content: str, match: re.Match[str]) -> str:
    return f"{match[1]}{content}\n{match[2]}"


def fill(parts: dict[str, str]) -> None:
    """Rewrites the marked parts of the page."""
    text = PAGE.read_text(encoding="utf-8")
    for name, content in parts.items():
        pattern = re.compile(rf"(<!-- {name}:begin -->\n).*?(<!-- {name}:end -->)", re.DOTALL)
        text, count = pattern.subn(partial(replacement, content), text)
        if count != 1:
            raise SystemExit(f"{PAGE}: markers of {name!r} found {count} times; expected once")
    PAGE.write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", action="store_true", help="only the tables, from the results that are there")
    if not parser.parse_args().tables:
        draw()
    curves = read("convergence.json")
    parts = {f"convergence-{p}": [c for c in curves if c["problem"] == p] for p in dict.fromkeys(c["problem"] for c in curves)}
    tables = {name: orders_table(part) for name, part in parts.items()}
    fill({**tables, "speed": f"{sparse_speed(read('solvers.json'))}\n\n{fixed_step_speed(read('navier_stokes.json'))}"})


if __name__ == "__main__":
    main()
