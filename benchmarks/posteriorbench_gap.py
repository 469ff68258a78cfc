"""What keeps `ddis-gn` from the floor on PosteriorBench's poisson: the trained prior, the operator, or the sampler.

    python benchmarks/posteriorbench_gap.py results/STUDY

Takes data, references and samples of a study of config/posteriorbench-poisson-64.yaml, posteriorbench-wiener-64.yaml or
posteriorbench-poisson-128.yaml, and draws with the settings of its run `ddis-gn-solver` as many samples of the same fields from
the exact prior, a mixture of Gaussian fields. Five distances to the reference, means over the fields, and in brackets how many
times the floor of as many draws. Methods that know no variance of the values have run on `kernel`; `noise` has the same sensors
and values, so that the same samples are compared with its reference too. Writes benchmarks/results/posteriorbench_gap/STUDY.md.
A minute on one core at 64 x 64 nodes; at 128 x 128 it has not been run.
"""

import argparse
from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
import torch

from ddis.config import Case, Study
from ddis.data.references import References, read_references
from ddis.evaluation.distances import average, distances
from ddis.files import write_text
from ddis.priors import mixture
from ddis.randomness import generator
from ddis.stages.common import settle
from ddis.stages.layout import reference_path
from ddis.stages.sampler import Sampler, observe
from ddis.stages.tables import read_case
from ddis.text import pipe_table

RESULTS = Path(__file__).parent / "results" / "posteriorbench_gap"
PROBLEM, SOLVER = "poisson", "ddis-gn-solver"
RUNS = {
    "`exact`": "exact",
    "trained prior, solver": SOLVER,
    "trained prior, operator of all pairs": "ddis-gn",
}
WITHOUT_VARIANCE = ("ddis", "fundps", "diffusionpde")


def with_exact_prior(study: Study, observation: str) -> np.ndarray:
    """Samples [n, K, S, S] of `ddis-gn-solver`, in physical units, with the exact prior in place of the trained one."""
    case = Case(PROBLEM, observation, SOLVER, "100")
    sampler = Sampler(study, case, study.run_for(case))
    parts = sampler.parts
    sampler.parts = replace(parts, prior=mixture(parts.problem, parts.prior.noise, parts.prior.coefficient))
    return drawn(sampler, study.data.test, "exact prior")


def drawn(sampler: Sampler, fields: int, stream: str) -> np.ndarray:
    """Samples [n, K, S, S] of the first test fields, in physical units; stream: of the random numbers."""
    study, method = sampler.study, sampler.method
    posterior = sampler.posterior(observe(study, sampler.case, "test", np.arange(fields)))
    prepared, _ = posterior.prepare(method)
    samples = []
    for field in range(fields):
        chains = [generator(study.seed, stream, field, chain) for chain in range(sampler.settings.samples)]
        *_, last = method.sample(posterior.batch(method, slice(field, field + 1), chains), prepared)
        samples.append(posterior.physical(last.x0).double().numpy().reshape(-1, *posterior.spaces[0].shape))
    return np.stack(samples)


def far(samples: np.ndarray, references: References, scale: float) -> np.ndarray:
    """The five distances to the second half of the references of the first fields, means over them."""
    half = references.coefficient.shape[1] // 2
    pairs = zip(samples, references.coefficient[: len(samples), half:], strict=True)
    return np.array(astuple(average([distances(x, y, scale=scale) for x, y in pairs])))


def beside(found: np.ndarray, floor: np.ndarray) -> list[str]:
    """Cells of a table: each distance, and in brackets how many times the floor."""
    return [f"{value:.3f} ({value / limit:.2f})" for value, limit in zip(found, floor, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="folder of the study")
    study, parts = Study.in_folder(parser.parse_args().study), []
    with settle(study):
        for observation in study.observations:
            references = read_references(reference_path(study, PROBLEM, observation))
            scale = references.attributes["coefficient_std"]
            cases = {name: Case(PROBLEM, observation, run, "100") for name, run in RUNS.items() if run in study.runs}
            others = [run for run, settings in study.runs.items() if settings.method in WITHOUT_VARIANCE]
            cases |= {f"`{run}`": Case(PROBLEM, "kernel", run, "100") for run in others}
            samples = {name: read_case(study, case).coefficient for name, case in cases.items()}
            samples["exact prior, solver"] = with_exact_prior(study, observation)
            counts = {own.shape[1] for own in samples.values()}
            floors = {k: far(references.coefficient[:, :k], references, scale) for k in sorted(counts, reverse=True)}
            rows = [[f"the floor of {k} draws", *(f"{value:.3f}" for value in floor)] for k, floor in floors.items()]
            for name, own in samples.items():
                rows.append([name, *beside(far(own, references, scale), floors[own.shape[1]])])
                print(" | ".join(rows[-1]), flush=True)
            parts += [f"## {observation}", pipe_table(["samples of", "mean", "std", "MMD", "SWD", "spectrum"], rows)]
    write_text(RESULTS / f"{study.study}.md", "\n\n".join(parts) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
