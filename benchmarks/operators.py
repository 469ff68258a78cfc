"""Architectures of neural operators at equal cost: the same processor time of training, about the same number of parameters.

    python benchmarks/operators.py

2,000 pairs of poisson and of darcy on 32 x 32 nodes, 60 s of one thread for each training, in which an architecture takes as many
steps of 16 fields as it can; the learning rate is the best on validation pairs of RATES, each tried for a sixth of that time.
Then the error on 200 fresh pairs, and the time of a field forward and with a vector-Jacobian product. Writes
benchmarks/results/operators.md. A quarter of an hour on one core.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddis.files import write_text
from ddis.models.architectures import Architecture, architecture_of
from ddis.models.normalisation import Normalisation
from ddis.models.operator import NeuralOperator
from ddis.pde import make_problem
from ddis.stages.common import keep_freed_memory
from ddis.training import regression
from ddis.training.loop import Trainer
from ddis.training.settings import TrainingSettings

SEED, SIZE, SECONDS, BATCH = 3, 32, 60.0, 16
COUNTS = {"train": 2000, "validation": 200, "test": 200}
RATES = (1e-2, 3e-3, 1e-3)
PROBLEMS = ("poisson", "darcy")
NETWORKS: dict[str, dict[str, Any]] = {
    "fno": {"modes": 16, "width": 20, "layers": 2},
    "unet": {"channels": [16, 32, 64], "blocks": [1, 1, 1]},
    "uno": {"modes": 16, "width": 12, "levels": 2},
}
RESULT = Path(__file__).parent / "results" / "operators.md"


@dataclass
class Pairs:
    """Pairs of a problem [N, S, S] by split, physical, and the normalisations of the training split."""

    name: str
    fields: dict[str, tuple[Tensor, Tensor]]
    scales: tuple[Normalisation, Normalisation]

    @classmethod
    def of(cls, name: str) -> "Pairs":
        problem, start, fields = make_problem(name, {}, SIZE), 0, {}
        for split, count in COUNTS.items():
            a = problem.sample_coefficients(range(start, start + count), SIZE, SEED)
            fields[split] = a.float(), torch.cat([problem.solve(part) for part in a.split(100)]).float()
            start += count
        a, u = fields["train"]
        return cls(name, fields, (Normalisation.of(a.numpy()), Normalisation.of(u.numpy())))

    def normalised(self, split: str) -> tuple[Tensor, Tensor]:
        a, u = self.fields[split]
        return self.scales[0].normalise(a), self.scales[1].normalise(u)


def trainer(pairs: Pairs, architecture: Architecture, rate: float, steps: int) -> Trainer:
    """Of a fresh network; its best average on validation pairs is kept."""
    torch.manual_seed(SEED)
    spaces = make_problem(pairs.name, {}).spaces(SIZE)
    network, average = (NeuralOperator(architecture, spaces, *pairs.scales) for _ in range(2))
    settings = TrainingSettings(
        steps=steps, batch=BATCH, learning_rate=rate, ema_half_life=1000, validate_every=max(1, steps // 8)
    )
    loss = regression.training_loss(network, *pairs.normalised("train"))
    return Trainer(
        network, loss, regression.validation_loss(*pairs.normalised("validation")), COUNTS["train"], settings, SEED, average
    )


def trained(pairs: Pairs, architecture: Architecture, rate: float, steps: int) -> tuple[NeuralOperator, float]:
    """The trained network and its loss on validation pairs."""
    made = trainer(pairs, architecture, rate, steps)
    for _ in made.run():
        pass
    made.average.load_state_dict(made.best)
    return made.average.requires_grad_(False), made.progress.best_loss  # type: ignore[return-value]


def seconds(call: Callable[[], Any], repeats: int) -> float:
    """Processor time of a call, the shortest of several: other programs on the machine do not count."""
    times = []
    for _ in range(repeats):
        begin = time.process_time()
        call()
        times.append(time.process_time() - begin)
    return min(times)


def step_seconds(pairs: Pairs, architecture: Architecture) -> float:
    """Of a step of training, validation included as it happens."""
    run = trainer(pairs, architecture, RATES[0], 10**6).run()
    for _ in range(3):
        next(run)
    return seconds(lambda: [next(run) for _ in range(10)], 3) / 10


def relative_error(network: NeuralOperator, pairs: Pairs) -> float:
    """Mean relative l2 error on the test pairs, in percent."""
    a, u = pairs.fields["test"]
    return 100 * float(regression.relative_l2(torch.cat([network(part) for part in a.split(50)]), u).mean())


def products(network: NeuralOperator, a: Tensor) -> Tensor:
    """Jᵀz for z = G(a)."""
    x = a.clone().requires_grad_()
    u = network(x)
    return torch.autograd.grad(u, x, u.detach())[0]


def row(pairs: Pairs, name: str) -> str:
    architecture = architecture_of({"architecture": name, **NETWORKS[name]})
    step = step_seconds(pairs, architecture)
    tried = {rate: trained(pairs, architecture, rate, round(SECONDS / 6 / step))[1] for rate in RATES}
    rate, steps = min(tried, key=tried.__getitem__), round(SECONDS / step)
    network, _ = trained(pairs, architecture, rate, steps)
    a = pairs.fields["test"][0][:64]
    with torch.no_grad():
        forward = 1e3 * seconds(lambda: network(a), 5) / len(a)
    both = 1e3 * seconds(lambda: products(network, a), 5) / len(a)
    weights = sum(p.numel() * (2 if p.is_complex() else 1) for p in network.parameters())
    cells = [f"`{pairs.name}`", f"`{name}`", f"{weights:,}", f"{steps}", f"{rate:g}", f"{relative_error(network, pairs):.2f}"]
    return "| " + " | ".join([*cells, f"{forward:.2f}", f"{both:.2f}"]) + " |"


def main() -> None:
    torch.set_num_threads(1)
    keep_freed_memory()
    lines = [
        "| problem | architecture | parameters | steps | learning rate | error, % | forward, ms | with VJP, ms |",
        "|---" * 8 + "|",
    ]
    for problem in PROBLEMS:
        pairs = Pairs.of(problem)
        for name in NETWORKS:
            lines.append(row(pairs, name))
            print(lines[-1], flush=True)
    write_text(RESULT, "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
