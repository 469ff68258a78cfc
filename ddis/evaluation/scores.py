"""Scores of a file of samples, field by field: what tables and comparisons of runs need, at a thousandth of the size."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddis.data.store import Samples
from ddis.evaluation import metrics
from ddis.evaluation.calibration import Calibration, calibration
from ddis.evaluation.misfits import misfits
from ddis.evaluation.sbc import Verdict, verdict

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Scores:
    """Of n test fields with K samples each. Fields with a value that is not finite, in samples or their solutions, failed: NaN.

    attributes    those of the file; observations: observed values of a field; resolution: nodes along its last axis
    fields        digest of the true coefficients: only runs on the same fields may be compared
    l2_sample     [n, K], relative l2 error of each sample, in percent
    l2_mean       [n, K], of the mean of the first 1, 2 ... K samples, in percent
    l2_stored     [n], of the mean in the file, in closed form where the method has it, in percent
    spectral      [n, K], E_s of each sample
    fine          [n, K], log of each sample's power over that of the truth, mean over the rings of the upper half of the spectrum
    error_rate    [n, K], share of wrong nodes of each sample, in percent; None but for coefficients of two values
    misfit        [n, K], of the solution of each sample, in standard deviations of solutions; None without solutions
    same_sign     [n, K], whether ⟨sample, truth⟩ > 0, 1 or 0; None but where a posterior has a and -a alike
    calibration   of the fields that did not fail; None below 4 samples
    verdict       simulation-based calibration of the same fields; None below 4 samples or 2 fields
    """

    attributes: dict[str, Any]
    observations: int
    resolution: int
    fields: str
    l2_sample: Array
    l2_mean: Array
    l2_stored: Array
    spectral: Array
    fine: Array
    error_rate: Array | None
    misfit: Array | None
    calibration: Calibration | None
    verdict: Verdict | None
    same_sign: Array | None = None

    @property
    def finite(self) -> NDArray[np.bool_]:
        """Fields [n] that did not fail."""
        return np.asarray(np.isfinite(self.l2_sample).all(axis=1))


def field_scores(samples: Samples, even: bool = False) -> Scores:
    """Scores of one file of samples; even: whether the posterior has a and -a alike."""
    finite, space = ~samples.failed, samples.spaces[0]
    members, truth = samples.coefficient[finite].astype(np.float64), samples.coefficient_true[finite].astype(np.float64)
    target, values = truth[:, None], metrics.two_values(samples.coefficient_true)
    product = (members * target).sum(axis=tuple(range(2, members.ndim)))
    counts = np.arange(1, members.shape[1] + 1).reshape(-1, *(1,) * (members.ndim - 2))

    def filled(values: Array) -> Array:
        whole = np.full((len(finite), *values.shape[1:]), np.nan)
        whole[finite] = values
        return whole

    return Scores(
        attributes=samples.attributes,
        observations=samples.observations,
        resolution=samples.coefficient.shape[-1],
        fields=hashlib.sha256(samples.coefficient_true.tobytes()).hexdigest(),
        l2_sample=filled(100 * metrics.relative_l2(members, target, space)),
        l2_mean=filled(100 * metrics.relative_l2(members.cumsum(axis=1) / counts, target, space)),
        l2_stored=100 * metrics.relative_l2(samples.mean, samples.coefficient_true, space),
        spectral=filled(metrics.spectral_error(members, target, space)),
        fine=filled(metrics.fine_power(members, target, space)),
        error_rate=None if values is None else filled(100 * metrics.error_rate(members, target, values)),
        misfit=None if samples.solution is None else filled(misfits(samples)[finite]),
        calibration=calibration(members, truth) if finite.any() else None,
        verdict=verdict(samples),
        same_sign=filled((product > 0).astype(np.float64)) if even else None,
    )


def find(scores: Sequence[Scores], **attributes: Any) -> Scores | None:
    """The first run with these attributes of its file: method, operator (fno, solver ...), percent, problem ..."""
    return next((s for s in scores if all(s.attributes.get(name) == value for name, value in attributes.items())), None)


def common(*runs: Scores) -> tuple[NDArray[np.bool_], int]:
    """Fields [n] that failed in none of the runs, and the number of samples that all of them have.

    Raises ValueError if the runs do not belong to the same test fields.
    """
    for run in runs[1:]:
        if run.fields != runs[0].fields:
            names = [f"{r.attributes['run']} at {r.attributes['percent']:g} %" for r in (run, runs[0])]
            raise ValueError(f"{names[0]} has other test fields than {names[1]}: they cannot be compared")
    return np.logical_and.reduce([run.finite for run in runs]), min(run.l2_sample.shape[1] for run in runs)
