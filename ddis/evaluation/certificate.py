"""What held-out fields say of a method: whether a fault is found, what its intervals cover, and the factor for a guarantee."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ddis.data.store import Samples
from ddis.errors import InputError
from ddis.evaluation import conformal
from ddis.evaluation.bootstrap import estimate
from ddis.evaluation.calibration import calibration
from ddis.evaluation.calibration_table import CREDIBILITIES, P_VALUES, verdict_cells
from ddis.evaluation.sbc import verdict
from ddis.text import pipe_table, with_interval

COVERAGE = "coverage90", "coverage90_low", "coverage90_high"
PERCENTS = round(100 * conformal.SHARE), round(100 * conformal.CONFIDENCE)


def certificate(samples: Samples) -> dict[str, Any]:
    """Plain values: columns of `ddis.evaluation.calibration_table`, coverage of the 90 % intervals, the factor and its scores.

    Raises InputError if fewer than 2 fields did not fail.
    """
    found, kept = verdict(samples), ~samples.failed
    if found is None:
        raise InputError(f"{kept.sum()} of {len(kept)} held-out fields can be used; accepted: 2 or more, with 4 samples each")
    drawn, truth = samples.coefficient[kept], samples.coefficient_true[kept]
    nodes = calibration(drawn, truth)
    covered = (None,) * 3 if nodes is None else estimate(lambda mean: mean, nodes.covered90)
    scores = conformal.scores(drawn, truth)
    names = {name: samples.attributes[name] for name in ("problem", "observation", "run", "percent", "noise")}
    return {
        **names,
        "observations": samples.observations,
        "n_failed": int(len(kept) - kept.sum()),
        **verdict_cells(found),
        **dict(zip(COVERAGE, covered, strict=True)),
        "share": conformal.SHARE,
        "confidence": conformal.CONFIDENCE,
        "factor": conformal.factor(scores),
        "scores": [float(f"{score:.6g}") for score in scores],
    }


def to_markdown(found: Mapping[str, Any]) -> str:
    """One table, and what its rows mean."""
    tested = {name: found[column] for column, name in P_VALUES.items() if found[column] is not None}
    rows = [
        ("verdict", found["verdict"]),
        ("p, all quantities together", f"{found['p_value']:.2g}"),
        ("p, all but the misfit", f"{found['p_fields']:.2g}"),
        *((f"p, {name}", f"{p:.2g}") for name, p in tested.items()),
        *((f"TARP, {c} %", with_interval(found, f"tarp{c}", f"tarp{c}_low", f"tarp{c}_high", digits=2)) for c in CREDIBILITIES),
        ("power against half the spread", f"{found['power']:.2f}"),
        ("coverage of the 90 % intervals", with_interval(found, *COVERAGE)),
        (f"factor for {PERCENTS[0]} % of the nodes in {PERCENTS[1]} % of the fields", _factor(found)),
    ]
    label = f"{found['problem']}, {found['observation']}, {found['run']} at {found['percent']:g} %"
    return "\n\n".join([f"{label}: {_fields(found)}", pipe_table(["what", "found"], rows), ""])


def line(found: Mapping[str, Any]) -> str:
    """What belongs to one answer of the method, as a sentence."""
    covered = with_interval({name: None if found[name] is None else 100 * found[name] for name in COVERAGE}, *COVERAGE)
    if found["factor"] is None:
        guarantee = f"there is no factor for a guarantee ({_no_factor(found)})"
    else:
        guarantee = f"times {found['factor']:.3g} they hold {PERCENTS[0]} % of them or more in {PERCENTS[1]} % of such fields"
    seen = f"{found['observation']}, {found['observations']} values, noise {found['noise']:g}"
    return f"check on {_fields(found)} ({seen}): {found['verdict']}; 90 % intervals hold {covered} % of the nodes; {guarantee}"


def _fields(found: Mapping[str, Any]) -> str:
    return f"{found['n_fields']} held-out fields, {found['n_samples']} samples each"


def _factor(found: Mapping[str, Any]) -> str:
    return f"none: {_no_factor(found)}" if found["factor"] is None else f"{found['factor']:.3g}"


def _no_factor(found: Mapping[str, Any]) -> str:
    few = found["n_fields"] < conformal.FEWEST
    return f"{conformal.FEWEST} fields or more are needed" if few else "samples without any spread at too many nodes"
