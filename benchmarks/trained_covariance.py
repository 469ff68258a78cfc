"""What the covariance of a trained denoiser is worth where the prior is not Gaussian: `ddis-gn` and others, through the solver.

    python benchmarks/trained_covariance.py [--study results/non-gaussian-32] [--problem mixture --problem darcy] [--tables]

Takes priors and data of a study of config/non-gaussian-32.yaml (`snakemake --cores all --configfile` that).
`mixture` is compared with draws of `exact` by the five distances of PosteriorBench, a second set of such draws being the floor;
two-valued darcy, whose posterior is not known, by errors and calibration. Adds to benchmarks/results/trained_covariance.json the
problems that it measures, and writes trained_covariance.md from it. Two minutes a problem on one core.
"""

import argparse
import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from ddis.config import Case, Study
from ddis.evaluation import metrics
from ddis.evaluation.calibration import calibration
from ddis.evaluation.distances import Distances, average, distances
from ddis.evaluation.text import read_table
from ddis.files import write_json, write_text
from ddis.posterior import mean_unit
from ddis.randomness import generator
from ddis.sampling import ddis_gn
from ddis.sampling.covariance import RingCovariance
from ddis.sampling.gauss_newton import GaussNewtonStep
from ddis.sampling.methods import run_settings
from ddis.stages.common import settle
from ddis.stages.sampler import Sampler, observe
from ddis.text import pipe_table

RESULT = Path(__file__).parent / "results" / "trained_covariance.json"
SAMPLES = {"mixture": 24, "darcy": 8}
Rows = dict[str, tuple[str, dict[str, Any]]]


class BelowOne(RingCovariance):
    """The denoiser's own covariance for σ ≤ 1, the average spectrum above."""

    def __call__(self, x_t: torch.Tensor, sigma: float) -> torch.Tensor:
        return self.average(x_t, sigma) if sigma > 1 else super().__call__(x_t, sigma)


class ReverseDraws(GaussNewtonStep):
    """x~ from five steps of the stochastic reverse diffusion, in place of N(x0_hat, Σ); Σ is that of the gain."""

    def __call__(self, x0_hat: torch.Tensor, x_t: torch.Tensor, sigma: float, progress: float) -> torch.Tensor:
        self.x_t, self.sigma = x_t, sigma
        return super().__call__(x0_hat, x_t, sigma, progress)

    def draw(self, x0_hat: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
        if math.isinf(self.sigma):
            return super().draw(x0_hat, variance)
        x, prior = self.x_t, self.batch.prior
        levels = [*np.geomspace(self.sigma, min(0.02, self.sigma / 2), 5), 0.0]
        for now, then in pairwise(levels):
            kept = (then / now) ** 2
            estimate = prior(x, torch.full((len(x),), float(now)))
            x = estimate + kept * (x - estimate) + then * (1 - kept) ** 0.5 * self.batch.draw_noise()
        return self.basis.forward(self.batch.free(x).double())


def gauss_newton(covariance: str, probes: int = 2, **settings: Any) -> tuple[str, dict[str, Any]]:
    return "ddis-gn", {"covariance": covariance, "probes": probes, **settings}


BELOW_ONE, REVERSE = "`ddis-gn`, denoiser for σ ≤ 1, p = 2", "`ddis-gn`, denoiser, p = 2, reverse diffusion for x~"
VARIANTS = {BELOW_ONE: {"RingCovariance": BelowOne}, REVERSE: {"GaussNewtonStep": ReverseDraws}}
COMMON: Rows = {
    "`tikhonov`": ("tikhonov", {}),
    "`ddis-gn`, spectrum": gauss_newton("spectrum"),
    **{f"`ddis-gn`, denoiser, p = {p}": gauss_newton("denoiser", p) for p in (1, 2, 8)},
    "`ddis-gn`, denoiser, p = 2, 30 levels": gauss_newton("denoiser", steps=30),
    REVERSE: gauss_newton("denoiser"),
}
ROWS: dict[str, Rows] = {
    "mixture": {
        "`exact`, a second set: the floor": ("exact", {}),
        **COMMON,
        BELOW_ONE: gauss_newton("denoiser"),
        "`ddis-gn`, denoiser, p = 2, σ from 3": gauss_newton("denoiser", sigma_max=3),
    },
    "darcy": {
        **COMMON,
        "`ddis-gn`, spectrum, σ down to 0.1": gauss_newton("spectrum", sigma_min=0.1),
        "`ddis-gn`, denoiser, p = 2, σ down to 0.1": gauss_newton("denoiser", sigma_min=0.1),
    },
}


def draw(study: Study, problem: str, method: str, stream: str = "own", **settings: Any) -> tuple[Any, dict[str, Any]]:
    """Samples [n, K, *shape] of all test fields in physical units, with what was observed; and what a sample costs."""
    settings = {"method": method, "samples": SAMPLES[problem], "operator": "solver", **settings}
    sampler = Sampler(study, Case(problem, "sparse", "ddis-gn", "100"), run_settings(method, settings).for_case(problem, "100"))
    observed, begin = observe(study, sampler.case, "test", np.arange(study.data.test)), time.process_time()
    posterior = sampler.posterior(observed)
    prepared, cost = posterior.prepare(sampler.method)
    n, k, fields, parts = study.data.test, sampler.settings.samples, sampler.settings.fields_per_batch, []
    for start in range(0, n, fields):
        chosen = range(start, min(start + fields, n))
        chains = [generator(study.seed, stream, field, chain) for field in chosen for chain in range(k)]
        batch = posterior.batch(sampler.method, slice(chosen.start, chosen.stop), chains, cost)
        *_, last = sampler.method.sample(batch, prepared)
        parts.append(posterior.physical(last.x0))
    samples = torch.cat(parts).double().numpy().reshape(n, k, *posterior.spaces[0].shape)
    seconds = (time.process_time() - begin) / (n * k)
    spent = {"prior": cost.prior / (n * k), "operator": cost.operator / (n * k), "cpu_seconds": seconds}
    return (samples, observed.coefficient, mean_unit(posterior.coefficient)), spent


def scores(samples: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Means over the fields, errors in percent."""
    found, values = calibration(samples, truth), metrics.two_values(truth)
    assert found is not None
    wrong = {} if values is None else {"error_rate": 100 * float(metrics.error_rate(samples, truth[:, None], values).mean())}
    return {
        "l2_sample": 100 * float(metrics.relative_l2(samples, truth[:, None]).mean()),
        "l2_mean": 100 * float(metrics.relative_l2(samples.mean(axis=1), truth).mean()),
        **wrong,
        "spectral": float(metrics.spectral_error(samples, truth[:, None]).mean()),
        "coverage90": found.coverage90,
        "spread_skill": found.spread_skill,
    }


def compare(samples: np.ndarray, reference: np.ndarray, scale: float) -> Distances:
    return average([distances(x, y, scale=scale) for x, y in zip(samples, reference, strict=True)])


def measure(study: Study, problem: str) -> list[dict[str, Any]]:
    known = "exact" if "exact" in {method for method, _ in ROWS[problem].values()} else None
    reference = draw(study, problem, known, "reference")[0][0] if known else None
    rows = []
    for name, (method, settings) in ROWS[problem].items():
        with patch.multiple(ddis_gn, **VARIANTS.get(name, {"RingCovariance": RingCovariance})):
            (samples, truth, scale), spent = draw(study, problem, method, **settings)
        own = {} if reference is None else {"distances": asdict(compare(samples, reference, scale))}
        rows.append({"name": name, **scores(samples, truth), **own, **spent})
        print(json.dumps(rows[-1]), flush=True)
    return rows


def page(result: Mapping[str, Any]) -> str:
    """benchmarks/results/trained_covariance.md."""
    study = result["study"]
    parts = [
        f"Study {study['name']}: {study['size']} x {study['size']} nodes, {study['observations']} observations with "
        f"{100 * study['noise']:g} % noise, {study['fields']} test fields, the solver for operator. Errors in percent; "
        "evaluations of the prior are per sample, a product with its Jacobian counted as one."
    ]
    for problem, found in result["problems"].items():
        shares = {level["sigma"]: 1 + level["excess"] for level in found["quality"]}
        levels = [[f"{sigma:g}" for sigma in shares], [f"{100 * share:.1f}" for share in shares.values()]]
        parts += [f"## {problem}", f"K = {SAMPLES[problem]}. Error of the denoiser, in percent of the best linear one's, by σ:"]
        parts.append(pipe_table(levels[0], levels[1:]))
        rows, distance = found["rows"], [field for field in Distances.__dataclass_fields__ if "distances" in found["rows"][0]]
        errors = [name for name in ("l2_sample", "l2_mean", "error_rate") if name in rows[0]]
        scored = ["spectral", "coverage90", "spread_skill"]
        head = ["sampler", *distance, *errors, *scored, "prior evaluations", "CPU seconds"]
        body = [
            [
                row["name"],
                *(f"{row['distances'][name]:.3f}" for name in distance),
                *(f"{row[name]:.1f}" for name in errors),
                *(f"{row[name]:.3f}" for name in scored),
                f"{row['prior']:.0f}",
                f"{row['cpu_seconds']:.3f}",
            ]
            for row in rows
        ]
        parts.append(pipe_table(head, body))
    return "\n\n".join([*parts, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", type=Path, default=Path("results/non-gaussian-32"), help="folder of the study")
    parser.add_argument("--problem", action="append", choices=ROWS, help="default: both")
    parser.add_argument("--tables", action="store_true", help="only the page, from the results that are there")
    arguments = parser.parse_args()
    if not arguments.tables:
        study = Study.in_folder(arguments.study)
        sensors = study.observations["sparse"]
        known = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {"problems": {}}
        known["study"] = {"name": study.study, "size": study.data.resolution, "fields": study.data.test}
        known["study"] |= {"observations": study.observed("darcy", "sparse"), "noise": sensors.noise}
        for problem in arguments.problem or ROWS:
            levels = read_table(study.folder / "models" / problem / "prior" / "denoising.csv")
            with settle(study):
                known["problems"][problem] = {"quality": levels, "rows": measure(study, problem)}
            write_json(RESULT, known)
    write_text(RESULT.with_suffix(".md"), page(json.loads(RESULT.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
