"""Stage `pairs`: which training fields are paired at a percent."""

from ddis.config import Study
from ddis.files import write_csv
from ddis.stages.common import stage, training_share
from ddis.stages.layout import data_path


def run(study: Study, problem: str, percent: str) -> None:
    """Writes data/<problem>/pairs-<percent>.csv with the column `index`."""
    with stage(study, "pairs", problem=problem, percent=percent) as (tracker, _):
        indices = training_share(study, percent)
        path = data_path(study, problem, "train").with_name(f"pairs-{percent}.csv")
        write_csv(path, [{"index": int(i)} for i in indices], ["index"])
        tracker.metrics({"pairs": len(indices)})
        tracker.artifact(path)
