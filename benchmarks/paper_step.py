"""One step of training and one of sampling with the networks of config/paper.yaml, 128 x 128 nodes, on this machine's CPU.

    python benchmarks/paper_step.py

Untrained networks, poisson, one field. A training step is forward, backward, optimiser and average of the weights: the first one,
with all that is set up in it, where it takes more than two seconds. A step of a sampler is one noise level of one chain, which
for ddis has twenty Langevin steps through the operator: the second one. Writes benchmarks/results/paper_step.md; needs 16 GB.
Some minutes.
"""

import platform
from pathlib import Path

import torch

from ddis.config import Case, Study
from ddis.files import write_text
from ddis.models.ids import ModelId
from ddis.sampling.methods import load_method
from ddis.stages.common import keep_freed_memory
from ddis.stages.measure import example, network_cost, sampler_step
from ddis.text import pipe_table

ROOT, PROBLEM, OBSERVATION, PERCENT = Path(__file__).parents[1], "poisson", "sparse", "100"
NETWORKS = {"prior": "prior", "joint": "joint-100", "operator": "operator-100"}
RUNS = {"ddis": ("prior", "operator"), "ddis-dps": ("prior", "operator"), "fundps": ("joint", None)}
RESULT = ROOT / "benchmarks" / "results" / "paper_step.md"


def main() -> None:
    threads = torch.get_num_threads()
    study, rows = Study.read([ROOT / "config" / "paper.yaml"], ["device=cpu"]), []
    units = example(study, PROBLEM)
    costs = {part: network_cost(study, PROBLEM, ModelId.parse(model), units) for part, model in NETWORKS.items()}
    for part, cost in costs.items():
        seconds = cost.step.seconds / cost.step.batch if cost.step.seconds else None
        if seconds is None or cost.step.fields != 1:
            raise SystemExit(f"{part}: {cost.step}; it takes one field in 16 GB of free memory")
        rows.append([f"`{NETWORKS[part]}`", "a step of training, one field", f"{cost.parameters:,}", f"{seconds:.1f}"])
    for run, (prior, operator) in RUNS.items():
        case = Case(PROBLEM, OBSERVATION, run, PERCENT)
        settings = study.run_for(case)
        parts = costs[prior], None if operator is None else costs[operator]
        found = sampler_step(study, case, load_method(settings.method)(settings), parts, units, fields=1, chains=1)
        rows.append([f"`{run}`", f"a step of {found.steps} of sampling, one chain", "", f"{found.seconds:.1f}"])
    head = ["network or run", "step", "parameters", "seconds"]
    told = f"{platform.machine()} CPU, {threads} threads, torch {torch.__version__}."
    write_text(RESULT, f"{pipe_table(head, rows)}\n\n{told}\n")


if __name__ == "__main__":
    keep_freed_memory()
    main()
