"""Does the physics loss help an operator of few pairs? Error on held-out pairs against the weight of the residual.

    python benchmarks/physics_loss.py [--tables]

poisson, helmholtz and darcy on 32 x 32 nodes, 10,000 coefficients of which 100 have solutions, the quickstart's operator, 600
steps of 8 pairs, one seed. With the residual (ddis.training.physics) each step has 8 coefficients without pairs too, so it costs
twice as much; a training on the pairs alone with twice the steps stands beside it, and one on all 10,000 pairs. "Preconditioned"
is the residual through the inverse Laplacian, ||Δ⁻¹ r(a, û)|| / ||Δ⁻¹ r(a, 0)||, an error in u; for poisson, and û = 0 on the
boundary, it is ||û - u|| / ||u||: a pair. Weights are chosen on the 10 validation pairs of the share; errors are those of 500
other pairs. Then, on poisson, what ddis-gn makes of the best operator of each way. What is in
benchmarks/results/physics_loss.json is not measured again. 40 minutes on one core, beside other work. Also writes
physics_loss.md beside it and docs/samplers/physics-loss.png; --tables only does that.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import pad

from ddis.evaluation.figures.style import LIMIT, drawing, plain_ticks, to_png
from ddis.evaluation.metrics import relative_l2, standard_error
from ddis.files import atomic_path, write_json, write_text
from ddis.models.architectures.fno import FNO
from ddis.models.normalisation import Normalisation
from ddis.models.operator import NeuralOperator
from ddis.observe.nodes import Nodes, draw_nodes
from ddis.operators.error import OperatorError, operator_error_model
from ddis.operators.network import Network
from ddis.pde import make_problem
from ddis.pde.base import Problem
from ddis.pde.dirichlet import solve_dirichlet
from ddis.posterior import Posterior
from ddis.priors.gaussian import gaussian
from ddis.provenance import collect
from ddis.text import pipe_table
from ddis.training import physics, regression
from ddis.training.loop import Trainer
from ddis.training.settings import PhysicsSettings, TrainingSettings

ROOT = Path(__file__).parents[1]
RESULT, FIGURE = ROOT / "benchmarks" / "results" / "physics_loss.json", ROOT / "docs" / "samplers" / "physics-loss.png"
SAMPLED, OBSERVED = 24, 125
SIZE, COEFFICIENTS, PAIRS, VALIDATION, FRESH, SEED = 32, 10_000, 100, 10, 500, 0
PROBLEMS = ("poisson", "helmholtz", "darcy")
NETWORK = FNO(modes=16, width=20, layers=2)
TRAINING = TrainingSettings(steps=600, batch=8, learning_rate=1e-2, ema_half_life=1000)
PAIRS_ALONE, LONGER, ALL_PAIRS = "100 pairs alone", "100 pairs alone, twice the steps", "10,000 pairs"
UNPAIRED, ON_PAIRS, PRECONDITIONED = "residual, unpaired", "residual, on the pairs", "preconditioned, unpaired"
BOUNDARY = 30.0
# Of each way: (weight of the residual, weight of the boundary).
WEIGHTS = {
    PAIRS_ALONE: ((0.0, 0.0),),
    LONGER: ((0.0, 0.0),),
    ALL_PAIRS: ((0.0, 0.0),),
    UNPAIRED: (*((weight, BOUNDARY) for weight in (0.1, 0.3, 1.0, 3.0)), (1.0, 0.0)),
    ON_PAIRS: ((0.1, BOUNDARY), (1.0, BOUNDARY)),
    PRECONDITIONED: ((0.3, BOUNDARY), (3.0, BOUNDARY)),
}
LAST = ("residual", "seconds")
Row = Mapping[str, Any]
COLOURS = {UNPAIRED: "#0072B2", ON_PAIRS: "#E69F00", PRECONDITIONED: "#009E73"}


class Preconditioned:
    """A problem's residual through the inverse Laplacian."""

    def __init__(self, problem: Problem):
        self.problem = problem

    def residual(self, coefficient: Tensor, solution: Tensor) -> Tensor:
        return solve_dirichlet(pad(self.problem.residual(coefficient, solution), (1, 1, 1, 1)))


def pairs(problem: Problem, count: int, seed: int) -> tuple[Tensor, Tensor]:
    a = problem.sample_coefficients(range(count), SIZE, seed)
    return a.float(), problem.solve(a).float()


class Setting:
    """A problem with its data, made once."""

    def __init__(self, name: str):
        self.problem = make_problem(name, {})
        coefficients = self.problem.sample_coefficients(range(COEFFICIENTS), SIZE, SEED).float()
        paired = pairs(self.problem, PAIRS, SEED)
        self.scales = Normalisation.of(coefficients.numpy()), Normalisation.of(paired[1].numpy())
        self.coefficients = self.scales[0].normalise(coefficients)
        self.paired = self.normalised(*paired)
        self.all_pairs = self.coefficients, self.scales[1].normalise(self.problem.solve(coefficients.double()).float())
        self.held_out = self.normalised(*pairs(self.problem, VALIDATION, SEED + 1))
        self.fresh = self.normalised(*pairs(self.problem, FRESH, SEED + 2))

    def normalised(self, a: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        return self.scales[0].normalise(a), self.scales[1].normalise(u)


def trained(setting: Setting, way: str, weight: float, boundary: float) -> tuple[NeuralOperator, Trainer]:
    """An operator trained in a way, the best average of its weights."""
    torch.manual_seed(SEED)
    spaces = setting.problem.spaces(SIZE)
    network, average = (NeuralOperator(NETWORK, spaces, *setting.scales) for _ in range(2))
    training = TRAINING.model_copy(update={"steps": 2 * TRAINING.steps}) if way == LONGER else TRAINING
    paired = setting.all_pairs if way == ALL_PAIRS else setting.paired
    loss = regression.training_loss(network, *paired)
    if weight or boundary:
        terms = PhysicsSettings(pde=weight, boundary=boundary, unpaired=way != ON_PAIRS)
        problem: Any = Preconditioned(setting.problem) if way == PRECONDITIONED else setting.problem
        equation = physics.Equation(problem, spaces[1].grid, terms)
        loss = physics.training_loss(network, setting.paired, setting.coefficients, equation, SEED, training.batch)
    trainer = Trainer(network, loss, regression.validation_loss(*setting.held_out), len(paired[0]), training, SEED, average)
    for _ in trainer.run():
        pass
    average.load_state_dict(trainer.best)
    return average, trainer


def train(setting: Setting, way: str, weight: float, boundary: float) -> dict[str, float]:
    """Errors in percent of an operator trained in a way, and the seconds that took."""
    average, trainer = trained(setting, way, weight, boundary)
    with torch.no_grad():
        a, u = setting.fresh
        errors = 100 * regression.relative_l2(average.forward_normalised(a), u).numpy()
        physical = [scale.restore(field) for scale, field in zip(setting.scales, (a, average.forward_normalised(a)), strict=True)]
        residual = physics.residual_term(setting.problem, *physical)
    return {
        "validation_error": 100 * trainer.progress.best_loss,
        "error": float(errors.mean()),
        "error_se": standard_error(errors),
        "residual": float(residual.mean()),
        "seconds": trainer.progress.seconds,
    }


def sample(setting: Setting, way: str, weight: float, boundary: float) -> dict[str, float]:
    """Error in percent of the mean of 8 samples of ddis-gn with such an operator; exact prior, 125 noiseless observations."""
    network = trained(setting, way, weight, boundary)[0].requires_grad_(False)
    problem = make_problem("poisson", {}, SIZE)
    grid, prior = problem.solution_space(SIZE).grid, gaussian(problem)
    a, u = setting.held_out
    error = OperatorError(grid.basis, 0.0, *operator_error_model(network.forward_normalised(a), u, grid.basis))
    operator, errors = Network(network, setting.scales[1], error), []
    truth, solution = (scale.restore(field) for scale, field in zip(setting.scales, setting.fresh, strict=True))
    for field in range(SAMPLED):
        index = draw_nodes(grid, OBSERVED, SEED, field)
        posterior = Posterior(problem, prior, operator, Nodes(index), solution[field].flatten()[index].numpy())
        mean = posterior.sample("ddis-gn", samples=8, seed=field).mean
        errors.append(100 * float(relative_l2(mean, truth[field].numpy())))
    return {"l2_mean": float(np.mean(errors)), "l2_mean_se": standard_error(np.array(errors))}


def sample_all(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The errors of samples on poisson, with the best operator of each way but the preconditioned one."""
    setting, found = Setting("poisson"), []
    for way in (PAIRS_ALONE, LONGER, ON_PAIRS, UNPAIRED, ALL_PAIRS):
        best = chosen(rows, "poisson", way)
        settings = {"way": way, "weight": best["weight"], "boundary": best["boundary"]}
        found.append({**settings, "error": best["error"], **sample(setting, **settings)})
        print(json.dumps(found[-1]), flush=True)
    return found


def wanted() -> Iterator[dict[str, Any]]:
    """What is measured."""
    for problem in PROBLEMS:
        for way, weights in WEIGHTS.items():
            yield from ({"problem": problem, "way": way, "weight": w, "boundary": boundary} for w, boundary in weights)


def measure_all() -> dict[str, Any]:
    known_before = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.is_file() else {}
    rows: list[dict[str, Any]] = known_before.get("rows", [])
    machine = {key: value for key, value in collect({}, None).items() if key in ("versions", "python", "device", "git_commit")}
    settings: dict[str, Setting] = {}
    for row in wanted():
        if any(row.items() <= known.items() for known in rows):
            continue
        name = row["problem"]
        settings.setdefault(name, Setting(name))
        rows.append({**row, **train(settings[name], row["way"], row["weight"], row["boundary"])})
        print(json.dumps(rows[-1]), flush=True)
        write_json(RESULT, {**machine, "rows": rows})
    if "samples" in known_before:
        return known_before
    result = {**machine, "rows": rows, "samples": sample_all(rows)}
    write_json(RESULT, result)
    return result


def chosen(rows: Sequence[Row], problem: str, way: str) -> Row:
    """The row with the smallest error on the validation pairs of the share."""
    return min((row for row in rows if (row["problem"], row["way"]) == (problem, way)), key=lambda row: row["validation_error"])


def page(rows: Sequence[Row], samples: Sequence[Row]) -> str:
    """The best of each way, and all rows, in Markdown."""
    best = ([problem, *(cell(chosen(rows, problem, way)) for way in WEIGHTS)] for problem in PROBLEMS)
    head = ["problem", "way", "weight of the residual", "of the boundary", "error, %", "validation error, %", "residual", "s"]
    return "\n\n".join(
        [
            "Relative l2 error in percent on 500 pairs that took no part, of the weights (residual; boundary) with the smallest "
            f"error on the {VALIDATION} validation pairs of the share.",
            pipe_table(["problem", *WEIGHTS], best),
            f"What samples make of it: poisson, {SAMPLED} of those fields, {OBSERVED} noiseless observations, exact prior, "
            f"ddis-gn with R from the {VALIDATION} validation pairs; error of the mean of 8 samples.",
            pipe_table(
                ["operator", "its error, %", "l2 of the mean, %"],
                ([row["way"], f"{row['error']:.1f}", f"{row['l2_mean']:.1f} ± {row['l2_mean_se']:.1f}"] for row in samples),
            ),
            f"{SIZE} x {SIZE} nodes, {TRAINING.steps} steps of {TRAINING.batch} pairs, one seed, one thread. Residual: "
            "||r(a, û)|| / ||r(a, 0)|| of the same predictions. Seconds beside other work on the machine.",
            pipe_table(head, (all_cells(row) for row in sorted(rows, key=order)), [False, False, *[True] * 6]) + "\n",
        ]
    )


def order(row: Row) -> tuple[Any, ...]:
    return PROBLEMS.index(row["problem"]), list(WEIGHTS).index(row["way"]), row["boundary"], row["weight"]


def cell(row: Row) -> str:
    weights = f" ({row['weight']:g}; {row['boundary']:g})" if row["weight"] or row["boundary"] else ""
    return f"{row['error']:.1f} ± {row['error_se']:.1f}{weights}"


def all_cells(row: Row) -> list[str]:
    error = f"{row['error']:.2f} ± {row['error_se']:.2f}"
    weights = [f"{row['weight']:g}", f"{row['boundary']:g}"]
    return [row["problem"], row["way"], *weights, error, f"{row['validation_error']:.2f}", *(f"{row[k]:.2g}" for k in LAST)]


def plot(rows: Sequence[Row]) -> Figure:
    """Error against the weight of the residual, one panel per problem, with what pairs alone give."""
    with drawing():
        figure = Figure(figsize=(10.4, 3.6), layout="constrained")
        for ax, problem in zip(figure.subplots(1, len(PROBLEMS)), PROBLEMS, strict=True):
            for way, style in {PAIRS_ALONE: "-", LONGER: "--", ALL_PAIRS: ":"}.items():
                ax.axhline(chosen(rows, problem, way)["error"], color=LIMIT, ls=style, lw=1.2, label=way)
            for way, colour in COLOURS.items():
                own = [row for row in rows if (row["problem"], row["way"]) == (problem, way)]
                for boundary in sorted({row["boundary"] for row in own}, reverse=True):
                    points = sorted((row["weight"], row["error"]) for row in own if row["boundary"] == boundary)
                    label = way if boundary else f"{way}, boundary 0"
                    ax.plot(*zip(*points, strict=True), color=colour, marker="o" if boundary else "x", ms=4, lw=1.4, label=label)
                best = chosen(rows, problem, way)
                ax.plot(best["weight"], best["error"], "o", ms=9, mfc="none", mec=colour)
            ax.set(xscale="log", title=problem, xlabel="weight of the residual")
            ax.set_ylim(0, 1.4 * chosen(rows, problem, PAIRS_ALONE)["error"])
            plain_ticks(ax, "x")
        figure.axes[0].set_ylabel("relative $l^2$ error, %")
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
        figure.suptitle(f"100 pairs and 10,000 coefficients, {SIZE} x {SIZE} nodes; ring: chosen on validation pairs", fontsize=9)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", action="store_true", help="only the page and the plot, from the results that are there")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    result = json.loads(RESULT.read_text(encoding="utf-8")) if arguments.tables else measure_all()
    write_text(RESULT.with_suffix(".md"), page(result["rows"], result["samples"]))
    with atomic_path(FIGURE) as temporary:
        temporary.write_bytes(to_png(plot(result["rows"])))


if __name__ == "__main__":
    main()
