"""What an FNO does on an L-shaped domain: `python benchmarks/masked_operator.py [CASE ...]`.

The same FNO, number of pairs, steps and seed on poisson and on poisson-l-shape, 32 x 32 nodes, and there with the coefficient
continued outside the domain in three ways before the network sees it: by 0 (what the package does), by the value of the
nearest node of the domain, by the field's mean. Writes the relative l2 errors of the solutions on 256 fresh pairs, at the nodes
of the domain, to benchmarks/results/masked_operator.json, case by case, and prints them as a table.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ddis.models.architectures.fno import FNO
from ddis.models.normalisation import Normalisation
from ddis.models.operator import NeuralOperator
from ddis.pde import make_problem
from ddis.pde.base import Problem
from ddis.text import pipe_table
from ddis.training import regression
from ddis.training.acceleration import accelerate
from ddis.training.loop import Trainer
from ddis.training.settings import TrainingSettings

RESULTS = Path(__file__).parent / "results" / "masked_operator.json"
SIZE, PAIRS, HELD_OUT, TEST, SEED = 32, 1000, 128, 256, 0
NETWORK = FNO(modes=16, width=20, layers=2)
TRAINING = TrainingSettings(steps=2000, batch=8, learning_rate=1e-2, ema_half_life=1000)


def kept(problem: Problem, a: Tensor) -> Tensor:
    """As it is: 0 outside a domain."""
    return a


def nearest(problem: Problem, a: Tensor) -> Tensor:
    """Outside the domain the value of its nearest node."""
    return problem.relax(a)


def mean(problem: Problem, a: Tensor) -> Tensor:
    """Outside the domain the mean over it, of each field."""
    inside = torch.from_numpy(problem.coefficient_space(SIZE).grid.nodes)
    return torch.where(inside, a, a[..., inside].mean(dim=-1)[..., None, None])


CASES: dict[str, tuple[str, Callable[[Problem, Tensor], Tensor]]] = {
    "poisson": ("poisson", kept),
    "l-shape, 0 outside": ("poisson-l-shape", kept),
    "l-shape, nearest value outside": ("poisson-l-shape", nearest),
    "l-shape, mean outside": ("poisson-l-shape", mean),
}


def measure(name: str) -> dict[str, float]:
    """Mean and median relative l2 error in percent, and seconds of training."""
    pde, extend = CASES[name]
    problem = make_problem(pde, {})
    spaces = problem.spaces(SIZE)
    a = problem.sample_coefficients(range(PAIRS + HELD_OUT + TEST), SIZE, SEED)
    u, a = problem.solve(a).float(), extend(problem, a).float()
    known = slice(0, PAIRS)
    scales = Normalisation.of(a[known].numpy(), spaces[0]), Normalisation.of(u[known].numpy(), spaces[1])
    x, y = scales[0].normalise(a), scales[1].normalise(u)
    torch.manual_seed(SEED)
    network, average = (NeuralOperator(NETWORK, spaces, *scales) for _ in range(2))
    accelerate(network.network, TRAINING)
    held = slice(PAIRS, PAIRS + HELD_OUT)
    loss = regression.training_loss(network, x[known], y[known])
    trainer = Trainer(network, loss, regression.validation_loss(x[held], y[held]), PAIRS, TRAINING, SEED, average)
    begin = time.perf_counter()
    for _ in trainer.run():
        pass
    seconds = time.perf_counter() - begin
    average.load_state_dict(trainer.best)
    with torch.no_grad():
        difference = average(a[PAIRS + HELD_OUT :]) - u[PAIRS + HELD_OUT :]
    inside = torch.from_numpy(spaces[1].grid.nodes)
    errors = 100 * difference[:, inside].norm(dim=1) / u[PAIRS + HELD_OUT :][:, inside].norm(dim=1)
    return {"mean": float(errors.mean()), "median": float(np.median(errors)), "seconds": seconds}


def table(results: dict[str, dict[str, float]]) -> str:
    rows = [[name, f"{row['mean']:.1f}", f"{row['median']:.1f}", f"{row['seconds']:.0f}"] for name, row in results.items()]
    return pipe_table(["case", "mean error, %", "median error, %", "seconds of training"], rows)


def main() -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True, warn_only=True)
    for name in sys.argv[1:] or CASES:
        results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
        results[name] = measure(name)
        RESULTS.write_text(
            json.dumps({case: results[case] for case in CASES if case in results}, indent=1) + "\n", encoding="utf-8"
        )
    print(table(json.loads(RESULTS.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
