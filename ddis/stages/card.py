"""Stage `card`: the dataset card of a problem."""

from typing import Any, cast

from ddis.config import Study
from ddis.data.card import card_data, card_markdown, field_digests, field_statistics, repetitions
from ddis.data.hdf5 import check_finite
from ddis.data.store import Pairs
from ddis.evaluation.figures.fields import pairs as pairs_figure
from ddis.evaluation.figures.style import drawable, to_png
from ddis.files import write_together
from ddis.lazy import torch
from ddis.pde.base import Problem
from ddis.settings import SPLITS
from ddis.stages.common import open_split, stage
from ddis.stages.layout import data_path
from ddis.yaml_text import yaml_text

FEW = 4  # test fields that are shown, and that the error of the solver is found on


def run(study: Study, problem: str) -> None:
    """Writes data/<problem>/card.md, card.yaml and pairs.png."""
    with stage(study, "card", problem=problem) as (tracker, _):
        splits: dict[str, dict[str, Any]] = {}
        digests: dict[str, list[bytes]] = {}
        warnings: list[str] = []
        for split in SPLITS:
            with open_split(study, problem, split) as pairs:
                check_finite(pairs.path, pairs.datasets)
                splits[split] = {
                    "count": pairs.count,
                    "digest": pairs.attributes["digest"],
                    "source": pairs.attributes.get("source", {}),
                    "residual": pairs.attributes.get("residual"),
                    **{name: field_statistics(fields) for name, fields in pairs.datasets.items()},
                }
                digests[split] = field_digests(pairs.datasets["coefficient"])
                warnings += [f"{split}: {text}" for text in pairs.attributes.get("warnings", [])]
                test = pairs.read(range(min(pairs.count, FEW)))
        made, settings = study.make_problem(problem), study.problems[problem]
        card = card_data(made, problem, settings.pde, study.data.resolution, splits, solver_error(made, test))
        card["warnings"] = warnings + repetitions(digests)
        folder = data_path(study, problem, "train").parent
        title = drawable(f"{problem}: {made.equation}")
        contents: dict[str, bytes | str] = {
            "card.md": card_markdown(card),
            "card.yaml": yaml_text(card),
            "pairs.png": to_png(pairs_figure(test.coefficient, test.solution, title, made.spaces(study.data.resolution))),
        }
        write_together({folder / name: content for name, content in contents.items()})
        for name in contents:
            tracker.artifact(folder / name)


def solver_error(problem: Problem, test: Pairs) -> float | None:
    """Of the solutions, see `discretisation_error`: from the file of the test split, or of `test` where an older one lacks it."""
    if "solver_error" in test.attributes:
        return cast("float | None", test.attributes["solver_error"])
    from ddis.data.residual import discretisation_error

    return discretisation_error(problem, torch.from_numpy(test.coefficient))
