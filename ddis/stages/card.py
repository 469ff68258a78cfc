"""Stage `card`: the dataset card of a problem."""

from typing import Any

import yaml

from ddis.config import SPLITS, Study
from ddis.data.card import card_data, card_markdown, field_statistics
from ddis.evaluation.figures import pairs as pairs_figure
from ddis.evaluation.figures import to_png
from ddis.files import atomic_path, write_text
from ddis.stages.common import data_path, load_pairs, stage


def run(study: Study, problem: str) -> None:
    """Writes data/<problem>/card.md, card.yaml and pairs.png."""
    with stage(study, "card", problem=problem) as (tracker, _):
        splits: dict[str, dict[str, Any]] = {}
        for split in SPLITS:
            pairs = load_pairs(study, problem, split)
            splits[split] = {
                "count": len(pairs.coefficient),
                "digest": pairs.attributes["digest"],
                "residual": pairs.attributes["residual"],
                "coefficient": field_statistics(pairs.coefficient),
                "solution": field_statistics(pairs.solution),
            }
        made, settings = study.make_problem(problem), study.problems[problem]
        card = card_data(made, problem, settings.pde, splits, study.data.resolution, study.seed)
        folder = data_path(study, problem, "train").parent
        write_text(folder / "card.yaml", yaml.safe_dump(card, sort_keys=False, allow_unicode=True))
        write_text(folder / "card.md", card_markdown(card))
        with atomic_path(folder / "pairs.png") as temporary:
            temporary.write_bytes(to_png(pairs_figure(pairs.coefficient[:4], pairs.solution[:4], f"{problem}: {made.equation}")))
        for name in ("card.md", "card.yaml", "pairs.png"):
            tracker.artifact(folder / name)
