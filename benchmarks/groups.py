"""How many channels of a prior's network are to be normalised together: one alone loses the field's mean.

    python benchmarks/groups.py

Fields and noise of benchmarks/preconditioning.py, a U-Net, EDM's preconditioning, 400 steps of 32 fields, learning rate 2e-3; one
seed. Then the squared error on 256 fresh fields, the same for all denoisers, relative to that of the Wiener filter: of the whole
field, and of its mean over the nodes, which for poisson is always 0. There the filter is optimal; two-valued darcy can do better.
Last, of darcy, the standard deviation of the share of nodes with the larger value, of those fields and of as many samples of the
prior (the ODE, 40 steps from σ = 10). Writes benchmarks/results/groups.md. Six minutes on one core.
"""

from pathlib import Path

import torch
from preconditioning import SEED, Fields, trained
from torch import Tensor

from ddis.files import write_text
from ddis.models.denoiser import Denoiser
from ddis.randomness import generator
from ddis.sampling.schedules import solve_ode
from ddis.stages.common import keep_freed_memory
from ddis.text import pipe_table

LARGEST = 10.0
SIGMAS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
PROBLEMS = ("darcy", "poisson")
RESULT = Path(__file__).parent / "results" / "groups.md"


@torch.no_grad()
def squared_errors(denoiser: Denoiser, fields: Fields) -> Tensor:
    """[levels, 2]: of all nodes, and of the mean."""
    x, found = fields.splits["test"], []
    for row, sigma in enumerate(SIGMAS):
        noise = fields.noise.sample(tuple(x.shape), [generator(SEED, "groups", row, place) for place in range(len(x))])
        error = denoiser(x + sigma * noise, torch.full((len(x),), sigma)) - x
        modes = fields.grid.basis.forward(error[:, 0].double()).square().mean(dim=0)
        found.append(torch.stack([modes.sum(), modes[0, 0]]))
    return torch.stack(found)


def share_of(x: Tensor) -> str:
    """Standard deviation of the share of nodes with the larger of two values, of fields [N, 1, S, S]."""
    return f"{float((x > 0).double().mean(dim=(1, 2, 3)).std()):.4f}"


def prior_samples(denoiser: Denoiser, fields: Fields) -> Tensor:
    """As many as there are test fields, which are hidden in noise of σ = 10."""
    x = fields.splits["test"]
    noise = fields.noise.sample(tuple(x.shape), [generator(SEED, "groups prior", place) for place in range(len(x))])
    return solve_ode(denoiser, x + LARGEST * noise, LARGEST, 40)


def rows(pde: str) -> list[list[str]]:
    fields, measured = Fields.of(pde, {}, pairs=False), []
    optimal = squared_errors(fields.filter, fields)
    for group in (1, 4):
        denoiser, two_valued = trained(fields, backbone={"group": group}), pde == "darcy"
        errors = squared_errors(denoiser, fields) / optimal
        share = share_of(prior_samples(denoiser, fields)) if two_valued else ""
        for what, column in zip(("field", "mean"), errors.T[: 1 + two_valued], strict=False):
            measured.append([pde, str(group), what, *(f"{float(value):.3f}" for value in column), share])
            print(measured[-1], flush=True)
    if two_valued:
        measured.append([pde, "", "test fields", *[""] * len(SIGMAS), share_of(fields.splits["test"])])
    return measured


def main() -> None:
    torch.set_num_threads(1)
    keep_freed_memory()
    about = (__doc__ or "").split("\n\n")[2].replace("\n", " ").strip()
    measured = [row for pde in PROBLEMS for row in rows(pde)]
    head = ["fields", "group", "error of", *(f"σ = {sigma:g}" for sigma in SIGMAS), "share, std"]
    table = pipe_table(head, measured, [False, True, False, *[True] * (1 + len(SIGMAS))])
    write_text(RESULT, f"# Channels that are normalised together\n\n`benchmarks/groups.py`. {about}\n\n{table}\n")


if __name__ == "__main__":
    main()
