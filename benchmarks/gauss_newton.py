"""What the Gauss-Newton step costs where the operator is not linear: navier-stokes, with an exact Gaussian denoiser.

    python benchmarks/gauss_newton.py [--study results/nonlinear-32] [--tables]

Takes the operator of a study of navier-stokes, trained on 10 % of the pairs, 125 observations of 16 test fields, two samples of
each, ten levels. Compares the Jacobian's rows of every chain at every level, one Jacobian at x = 0 for all, and products alone
(matrix-free, the default of `ddis-gn` here). Writes benchmarks/results/gauss_newton.json, and from it gauss_newton.md. About
ten minutes on one core.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddis.config import Case, Study
from ddis.data.store import failed_fields
from ddis.evaluation import metrics
from ddis.files import write_json, write_text
from ddis.models.normalisation import Normalisation
from ddis.priors import gaussian
from ddis.provenance import collect
from ddis.sampling.base import Batch, Method, State
from ddis.sampling.covariance import AverageSpectrum
from ddis.sampling.daps import anneal
from ddis.sampling.ddis_gn import DDISGN
from ddis.sampling.gauss_newton import GaussNewtonStep, gaussian_update, jacobian_rows
from ddis.sampling.schedules import karras_schedule
from ddis.stages.common import settle
from ddis.stages.sampler import Sampler, observe
from ddis.text import pipe_table

RESULT = Path(__file__).parent / "results" / "gauss_newton.json"
PROBLEM, PERCENT, FIELDS, SAMPLES = "navier-stokes", "10", 16, 2


class OwnJacobian:
    """The correction with all rows of the Jacobian at every chain's own point, an m x m factorisation per chain."""

    def __init__(self, task: Batch):
        self.task, self.basis = task, task.basis

    def __call__(self, point: Tensor, x_tilde: Tensor, target: Tensor, variance: Tensor) -> Tensor:
        """As DenseUpdate."""
        n, k = target.shape[:2]
        index = self.task.observation.index.repeat_interleave(k, dim=0)
        covariance = self.task.observation.covariance.double().repeat_interleave(k, dim=0)
        rows = self.basis.forward(jacobian_rows(self.task, point, index)[0].double()).flatten(2)
        with torch.no_grad():
            predicted = self.task.predict(point).double()
        shift = (x_tilde - self.basis.forward(point.double())).flatten(1)
        residual = target.flatten(0, 1) - predicted - (rows @ shift[..., None])[..., 0]
        return gaussian_update(rows, variance.flatten(), covariance, residual[:, None]).reshape(n, k, -1)


class RowsOfEveryChain(DDISGN):
    """`ddis-gn` with `OwnJacobian`."""

    def prepare(self, batch: Batch) -> Any:
        return None

    def sample(self, batch: Batch, prepared: Any) -> Iterator[State]:
        s, task = self.settings, batch
        likelihood = GaussNewtonStep(task, OwnJacobian(task), AverageSpectrum(task), s.iterations)  # type: ignore[arg-type]
        yield from anneal(task, likelihood, karras_schedule(s.sigma_max, s.sigma_min, s.steps), s.ode_steps)


WAYS: dict[str, tuple[type[Method], dict[str, Any]]] = {
    "rows of every chain at every level": (RowsOfEveryChain, {}),
    "one Jacobian at x = 0 for all": (DDISGN, {"solver": "dense"}),
    "products alone (`ddis-gn`)": (DDISGN, {}),
    "products alone, 2 iterations": (DDISGN, {"iterations": 2}),
    "products alone, tolerance 0.03": (DDISGN, {"tolerance": 0.03}),
    "products alone, 5 levels": (DDISGN, {"steps": 5}),
}


def measure(study: Study, method: type[Method], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Error and cost of one way to the correction."""
    case = Case(PROBLEM, next(iter(study.observations)), "ddis-gn", PERCENT)
    settings = study.run_for(case).model_copy(update={"samples": SAMPLES, **changes})
    sampler, observed = Sampler(study, case, settings), observe(study, case, "test", np.arange(FIELDS))
    parts = sampler.parts
    sampler.method = method(settings)
    # The optimal denoiser in place of the trained one, in units without a mean.
    coefficient = Normalisation(0.0, parts.prior.coefficient.std)
    sampler.parts = replace(parts, prior=gaussian(parts.problem, parts.prior.noise, coefficient))
    with tempfile.TemporaryDirectory() as folder:
        sampler.draw(observed, "test", Path(folder), range(FIELDS))
        result = sampler.collect(observed, Path(folder))
    assert not failed_fields(result.coefficient).any()
    sample = 100 * metrics.relative_l2(result.coefficient, observed.coefficient[:, None]).mean(axis=1)
    mean = 100 * metrics.relative_l2(result.coefficient.mean(axis=1), observed.coefficient)
    return {
        "l2_sample": sample.tolist(),
        "l2_mean": mean.tolist(),
        "spectral": float(metrics.spectral_error(result.coefficient, observed.coefficient[:, None]).mean()),
        "operator_evaluations": result.operator_evaluations,
        "seconds_per_sample": result.seconds / (FIELDS * SAMPLES),
    }


def measure_all(study: Study) -> dict[str, Any]:
    model = json.loads((study.folder / "models" / PROBLEM / f"operator-{PERCENT}" / "model.json").read_text(encoding="utf-8"))
    machine = {key: value for key, value in collect({}, None).items() if key in ("versions", "python", "device", "git_commit")}
    result = {
        "study": study.study,
        "size": study.data.resolution,
        "operator_error": model["relative_error"],
        "rows": [],
        **machine,
    }
    for name, (method, changes) in WAYS.items():
        result["rows"].append({"way": name, **measure(study, method, changes)})
        print(json.dumps({key: np.mean(value) for key, value in result["rows"][-1].items() if key != "way"}), name, flush=True)
    return result


def page(result: Mapping[str, Any]) -> str:
    """benchmarks/results/gauss_newton.md."""
    head = ["Jacobian", "l2 of a sample, %", "l2 of the mean of 2, %", "E_s", "operator evaluations", "s per sample", "speed-up"]
    slowest = result["rows"][0]["seconds_per_sample"]
    body = []
    for row in result["rows"]:
        errors = (f"{np.mean(e):.1f} ± {np.std(e, ddof=1) / len(e) ** 0.5:.1f}" for e in (row["l2_sample"], row["l2_mean"]))
        seconds = row["seconds_per_sample"]
        costs = (f"{row['operator_evaluations']:.0f}", f"{seconds:.2f}", f"{slowest / seconds:.1f}")
        body.append([row["way"], *errors, f"{row['spectral']:.3f}", *costs])
    size = result["size"]
    setting = (
        f"navier-stokes, {size} x {size} nodes, 125 observations, {FIELDS} test fields, an FNO with "
        f"{100 * result['operator_error']:.1f} % error, the optimal denoiser of the Gaussian coefficient; one thread of "
        f"{result['device']}. Costs are per sample of one field."
    )
    return "\n\n".join([setting, pipe_table(head, body), ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", type=Path, default=Path("results/nonlinear-32"), help="folder of a study of navier-stokes")
    parser.add_argument("--tables", action="store_true", help="only the table, from the results that are there")
    arguments = parser.parse_args()
    if not arguments.tables:
        study = Study.in_folder(arguments.study)
        with settle(study):
            write_json(RESULT, measure_all(study))
    write_text(RESULT.with_suffix(".md"), page(json.loads(RESULT.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
