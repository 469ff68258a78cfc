"""The run of the whole study in MLflow, under which its stages stand: its span, its scores, and what it is in words."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ddis.provenance import file_digest
from ddis.tracking.runs import Run
from ddis.tracking.tracker import Tracker

if TYPE_CHECKING:
    from mlflow.entities import Run as MlflowRun

HEADLINE = ("l2_mean", "l2_sample", "spectral", "coverage90", "ratio_to_limit")
SCORES = (*HEADLINE, "error_rate", "coverage50", "crps", "spread_skill", "misfit", "l2_limit", "seconds_per_field")
DESCRIPTION = """# Study `{}`
Posterior samples of PDE coefficients from sparse observations of the solutions. Each stage is a run below this one: data sets,
networks, samples. Tables, figures, `report.html` and the settings (`config.yaml`) are among the artifacts.

"""


class Parent:
    """The study's run; created with the time of its first stage, or found."""

    def __init__(self, tracker: Tracker, experiment: str, folder: Path, begin: int, known: "MlflowRun | None") -> None:
        self._tracker, self._folder = tracker, folder
        self._tags: dict[str, str] = dict(known.data.tags) if known else {}
        self._shown = (known.info.status, known.info.end_time) if known else ("RUNNING", None)
        if known is None:
            tags = {"ddis.kind": "study", "ddis.study": folder.name, "ddis.run": folder.name}
            self.id = tracker.create(experiment, folder.name, begin, tags)
        else:
            self.id = known.info.run_id
            if known.info.lifecycle_stage == "deleted":
                tracker.client.restore_run(self.id)
        self._note("mlflow.note.content", self._tags.get("mlflow.note.content", DESCRIPTION.format(folder.name)))

    def settle(self, stages: Mapping[str, Run], last: bool) -> None:
        """Brings the study's run to the state of the newest runs of its stages; while more are to come, it is at work."""
        config, table, made = self._folder / "config.yaml", self._folder / "tables" / "errors.csv", stages.get("tables")
        if config.is_file() and self._tags.get("ddis.config_sha256") != (digest := file_digest(config)):
            self._tracker.client.log_artifact(self.id, str(config))
            self._note("ddis.config_sha256", digest)
        if made and made.status == "FINISHED" and table.is_file():
            version = f"{made.key} {file_digest(table)}"
            if self._tags.get("ddis.tables") != version:
                self._send_scores(read_errors(table), stages, made.last)
                text = table.with_suffix(".md").read_text(encoding="utf-8")
                self._note("mlflow.note.content", DESCRIPTION.format(self._folder.name) + text)
                self._note("ddis.tables", version)
        found = {run.status for run in stages.values()} if last else {"RUNNING"}
        status = next((status for status in ("RUNNING", "FAILED", "KILLED") if status in found), "FINISHED")
        state = (status, None if status == "RUNNING" else max(run.last for run in stages.values()))
        if state != self._shown:
            self._tracker.set_state(self.id, *state)
            self._shown = state

    def _note(self, tag: str, value: str) -> None:
        if self._tags.get(tag) != value:
            self._tracker.log(self.id, tags={tag: value})
            self._tags[tag] = value

    def _send_scores(self, rows: list[dict[str, str]], stages: Mapping[str, Run], time: int) -> None:
        """The headline of each row to the study's run, all its scores to the run that sampled it."""
        for row in rows:
            case = [row[name] for name in ("problem", "observation", "run", "percent")]
            label = f"{'/'.join(case[:3])}-{case[3]}"
            self._tracker.log(self.id, [(f"{label}/{name}", row[name], time, 0) for name in HEADLINE if row.get(name)])
            if (sampled := stages.get("/".join(["sample", *case]))) and sampled.id:
                self._tracker.log(sampled.id, [(name, row[name], time, 0) for name in SCORES if row.get(name)])


def read_errors(table: Path) -> list[dict[str, str]]:
    """The rows of tables/errors.csv, with the ratio of l2_mean to l2_limit where there is a limit."""
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["percent"] = format(float(row["percent"]), "g")
        if row["l2_limit"] and row["l2_mean"]:
            row["ratio_to_limit"] = str(float(row["l2_mean"]) / float(row["l2_limit"]))
    return rows
