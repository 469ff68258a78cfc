"""Stage `guidance`: how strong the guidance of joint and decoupled models is, by share of the pairs, at a few noise levels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from ddis.config import Case, Study
from ddis.data.subsets import fraction_of, subset_count
from ddis.errors import InputError
from ddis.evaluation import attenuation
from ddis.evaluation.figures.style import small_png
from ddis.evaluation.text import read_table
from ddis.files import write_text, write_together
from ddis.observe.simulated import Simulated
from ddis.randomness import generator
from ddis.sampling.guidance import Through, guidance_gradient
from ddis.sampling.methods import run_settings
from ddis.stages.common import stage
from ddis.stages.layout import guidance_path
from ddis.stages.sampler import Sampler, observe
from ddis.text import csv_text

LEVELS, FIELDS = (3.0, 1.0, 0.3, 0.1), 32
ROUTES: tuple[Through, ...] = ("denoiser", "operator")

Gradients = dict[tuple[Through, float], torch.Tensor]


def run(study: Study, problem: str) -> None:
    """Writes guidance/<problem>/: gradients.csv, README.md, attenuation.png."""
    if problem not in study.guided():
        raise InputError(f"problem {problem!r}: no guidance to compare; accepted: problems with {attenuation.NEEDS}")
    with stage(study, "guidance", problem=problem) as (tracker, _):
        path = guidance_path(study, problem)
        write_text(path, csv_text(measure(study, problem), attenuation.COLUMNS))
        table = read_table(path, attenuation.TYPES)
        page = f"# {attenuation.TITLE}, study `{study.study}`\n\n{attenuation.page(table)}\n\n![norms](attenuation.png)\n"
        files: dict[str, str | bytes] = {"README.md": page, "attenuation.png": small_png(attenuation.chart(table))}
        write_together({path.with_name(name): content for name, content in files.items()})
        tracker.artifact(path)


def measure(study: Study, problem: str) -> Iterator[dict[str, Any]]:
    """Rows of gradients.csv: a gradient's norm in the coefficient and in the solution, and its cosine with the exact one."""
    observation, fields = next(iter(study.observations)), np.arange(min(FIELDS, study.data.test))
    observed = observe(study, Case(problem, observation, "", "100"), "test", fields)
    made = study.make_problem(problem)
    exact = gradients(study, problem, "exact", "100", observed) if made.linear and made.is_gaussian else None
    shared = {"problem": problem, "observation": observation}
    if exact is not None:
        yield from _rows(exact, exact, shared | {"model": "exact"})
    for model, method in (("joint", "fundps"), ("decoupled", "ddis-dps")):
        for percent in study.guided()[problem]:
            found = gradients(study, problem, method, percent, observed)
            count = subset_count(fraction_of(percent), study.data.train)
            yield from _rows(found, exact, shared | {"model": model, "percent": float(percent), "pairs": count})


def _rows(found: Gradients, exact: Gradients | None, shared: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for (through, sigma), gradient in found.items():
        truth = None if exact is None else exact[through, sigma]
        channels = gradient.shape[1] // (1 + (shared["model"] == "joint"))
        own, rest = (part.flatten(1) for part in gradient.double().tensor_split([channels], dim=1))
        for field, row in enumerate(own):
            cosine = None if truth is None else float(torch.cosine_similarity(row, truth[field].double().flatten(), dim=0))
            norms = {"norm": float(row.norm()), "norm_solution": float(rest[field].norm()) if rest.shape[1] else None}
            yield shared | {"through": through, "sigma": sigma, "field": field, "cosine": cosine} | norms


def gradients(study: Study, problem: str, method: str, percent: str, observed: Simulated) -> Gradients:
    """Gradients [n, C, *nodes] of a method's model, by route and noise level; the values of a field guide the next one's chain.

    The noise of a field at a level is the same for all models.
    """
    own = {"operator": study.operator.name} if method == "ddis-dps" else {}
    settings = run_settings(method, own).for_case(problem, percent)
    sampler = Sampler(study, Case(problem, "", "", percent), settings)
    posterior = sampler.posterior(observed)
    joint = sampler.parts.prior.joint
    free = posterior.problem.relax(torch.from_numpy(observed.coefficient).double())
    parts = [posterior.coefficient.normalise(free)]
    if joint:
        parts.append(posterior.solution.normalise(torch.from_numpy(observed.solution).double()))
    nodes = posterior.spaces[0].grid.shape
    clean = torch.cat([part.reshape(len(part), -1, *nodes) for part in parts], dim=1).roll(1, dims=0)
    found: Gradients = {}
    for number, sigma in enumerate(LEVELS):
        chains = [generator(study.seed, f"guidance {problem}", number, field) for field in range(len(clean))]
        batch = posterior.batch(sampler.method, slice(None), chains)
        x_t = (clean.to(batch.device) + sigma * batch.draw_noise(clean.shape[1])).float()
        for through in ROUTES[: 1 if joint else 2]:
            found[through, sigma] = guidance_gradient(batch, x_t, sigma, through).cpu()
    return found
