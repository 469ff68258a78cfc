"""Stage `generate`: one split of a problem's dataset."""

import numpy as np

from ddis.config import Study
from ddis.data.generate import generate_pairs, split_indices
from ddis.data.store import write_pairs
from ddis.progress import Progress
from ddis.stages.common import data_path, stage


def run(study: Study, problem: str, split: str) -> None:
    """Writes data/<problem>/<split>.h5."""
    with stage(study, "generate", problem=problem, split=split) as (tracker, _):
        made, count = study.make_problem(problem), getattr(study.data, split)
        progress, parts = Progress(f"{problem} {split}", count, unit="fields"), []
        for part in generate_pairs(made, split_indices(split, count), study.data.resolution, study.seed):
            parts.append(part)
            progress.update(sum(len(p[0]) for p in parts))
        progress.finish()
        residual = max(p[2] for p in parts)
        attributes = {
            "problem": problem,
            "pde": study.problems[problem].pde,
            "parameters": made.parameters.model_dump(mode="json"),
            "split": split,
            "seed": study.seed,
            "residual": residual,
            "configuration": study.digest("generate", problem=problem, split=split),
        }
        path = data_path(study, problem, split)
        arrays = np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])
        digest = write_pairs(path, *arrays, attributes)
        tracker.tag("ddis.data_digest", digest)
        tracker.metrics({"fields": count, "residual": residual})
