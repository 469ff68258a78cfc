"""The cases of a study as the sections of the paper's page see them. Imports nothing heavy: the workflow asks it too."""

import math
from typing import Any

from ddis.config import Case, Study
from ddis.evaluation.paper.sections import SECTIONS, Entry, Operator, Section
from ddis.observe import SensorSettings
from ddis.sampling.base import RunSettings
from ddis.sampling.methods import load_method, operator_of, uses_pairs

WHERE = {"method", "operator", "samples", "fractions", "problems", "observations", "batch"}  # what a run is made on
PAGE = "README.md"


def sections(study: Study) -> list[tuple[Section, list[Entry]]]:
    """Every section with the cases that it takes; none where the study lacks a run that it needs."""
    entries = [_entry(study, case) for case in study.cases()]
    return [(section, section.entries(entries)) for section in SECTIONS]


def paper_files(study: Study) -> list[str]:
    """File names of the page."""
    guided = [f"attenuation-{problem}.png" for problem in study.guided()]
    return [PAGE, *(name for section, entries in sections(study) if entries for name in section.files(entries)), *guided]


def pictured(study: Study) -> list[Case]:
    """The cases whose sample files the figures are drawn from."""
    keys = dict.fromkeys(e.key for section, entries in sections(study) if section.pictures for e in entries)
    return [Case(*key) for key in keys]


def _entry(study: Study, case: Case) -> Entry:
    settings, first = study.runs[case.run], _first(study, case)
    observed, base = (_observed(study, name) for name in (case.observation, next(iter(study.observations))))
    percents = sorted({c.percent for c in study.cases() if uses_pairs(study.runs[c.run])}, key=float)
    paired = uses_pairs(settings)
    return Entry(
        **vars(case),
        pde=study.problems[case.problem].pde,
        method=settings.method,
        operator=_operator(study, settings),
        differs=frozenset(name for name, value in _own(settings).items() if value != getattr(first, name)),
        budget=2 ** round(math.log2(128 * getattr(settings, "steps", 1) / getattr(first, "steps", 1))),
        values=observed[0],
        noise=observed[1],
        base=case.observation == next(iter(study.observations)),
        same_noise=observed[1] == base[1],
        same_values=observed[0] == base[0],
        most=not paired or case.percent == percents[-1],
        few=not paired or case.percent == percents[0],
        settings=_chosen(study.run_for(case)) + _trained(study, case),
    )


def _first(study: Study, case: Case) -> RunSettings:
    """The first run of the method of a case."""
    return next(settings for settings in study.runs.values() if settings.method == study.runs[case.run].method)


def _own(settings: RunSettings) -> dict[str, Any]:
    """What makes a run another experiment: not its weight, which is chosen for each case, nor what it is made on."""
    weights = {load_method(settings.method).tuned, "start_weight"}
    return {name: value for name, value in settings if name not in WHERE | weights}


def _chosen(settings: RunSettings) -> tuple[tuple[str, str], ...]:
    """Settings that are not at their defaults."""
    shown = ((name, value, field) for name, field in type(settings).model_fields.items() for value in [getattr(settings, name)])
    return tuple(
        (name, f"{value:g}" if isinstance(value, float) else str(value))
        for name, value, field in shown
        if name not in WHERE and value != field.default
    )


def _trained(study: Study, case: Case) -> tuple[tuple[str, str], ...]:
    """The nodes that networks are trained on, where these are fewer than the fields have."""
    return tuple((f"{name}.resolution", str(size)) for name, size in study.coarser(case.run, case.percent).items())


def _operator(study: Study, settings: RunSettings) -> Operator:
    name = operator_of(settings)
    if load_method(settings.method).closed_form or name in (None, study.operator.name):
        return "own"
    if name == "solver":
        return "solver"
    return "physics" if name in study.operators and study.operators[name].physics is not None else "other"


def _observed(study: Study, name: str) -> tuple[int | None, float | None]:
    """Number of values, and noise; None where it is not one of nodes or points that are counted."""
    settings = study.observations[name]
    if not isinstance(settings, SensorSettings):
        return None, None
    return getattr(settings, "count", None), settings.noise
