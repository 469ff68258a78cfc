"""Stage `draw`: the batches of one shard of a run, for `sample` to gather."""

from ddis.config import Case, Study
from ddis.stages.sample import run_shard


def run(study: Study, problem: str, observation: str, run: str, percent: str, shard: str) -> None:
    """Draws the test fields of a shard (0, 1, ...) into the study's work folder."""
    run_shard(study, Case(problem, observation, run, percent), shard)
