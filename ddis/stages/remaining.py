"""Hours that a study still takes, told before it starts: each job takes what it took when it last ran, or what `ddis cost` has
measured for its settings. Imports nothing heavy: the workflow tells it.
"""

import csv
from collections.abc import Collection, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from ddis.config import Study
from ddis.errors import InputError
from ddis.files import read_json, read_text
from ddis.stages.records import check_steps, outputs_of, steps, tuning_steps
from ddis.steps import Step, read_record, record_name

COST = "cost.json"  # in a study's folder: device, and for each job by label the digest of its settings and its seconds
LONG = ("generate", "train", "sample", "reference", "tune", "check")  # the stages that take more than seconds


def hours_left(study: Study, work: Mapping[str, str], targets: Collection[str], command: str) -> str | None:
    """One sentence on those jobs of `work` (reasons by label) that the targets ask for; None if none of them takes long.

    command: how to get an estimate where there is none, `ddis cost` in backticks.
    """
    device, estimates = stored(study)
    wanted = [step for step in steps(study) if set(targets) - {"tune", "check"} or step.stage in ("generate", "train")]
    wanted += tuning_steps(study) * ("tune" in targets) + check_steps(study) * ("check" in targets)
    jobs = [step for step in wanted if step.label in work and step.stage in LONG]
    found = [seconds for step in jobs if (seconds := seconds_of(study, step, estimates)) is not None]
    missing = f"{len(jobs) - len(found)} of {len(jobs)} jobs have no estimate, which {command} makes"
    if not found:
        return f"Hours left: not known, {missing}." if jobs else None
    notes = [missing] * (len(found) < len(jobs)) + [f"estimates are of {device}"] * bool(device)
    return "; ".join([f"Hours left, one job after another: {sum(found) / 3600:.2g}", *notes]) + "."


def seconds_of(study: Study, step: Step, estimates: Mapping[str, tuple[str, float]]) -> float | None:
    """What a job takes; a training that was resumed, with all its sessions."""
    record = read_record(study.folder / record_name(step)) or {}
    try:
        last = (datetime.fromisoformat(record["ended"]) - datetime.fromisoformat(record["started"])).total_seconds()
        return max(last, trained_seconds(study, step))
    except (KeyError, TypeError, ValueError):  # not made yet, or a record without its times
        digest, seconds = estimates.get(step.label, ("", 0.0))
        return seconds if digest and digest == step.digest(study) else None


def trained_seconds(study: Study, step: Step) -> float:
    """Of the steps of a training in all its sessions, which its history adds up; 0 of other stages, or if it cannot be read."""
    paths = [path for path in outputs_of(study, step) if path.name == "history.csv"] if step.stage == "train" else []
    try:
        return max(float(row["seconds"]) for path in paths for row in csv.DictReader(read_text(path).splitlines()))
    except (InputError, KeyError, TypeError, ValueError):
        return 0.0


def stored(study: Study) -> tuple[str, dict[str, tuple[str, float]]]:
    """The device of the estimate of `ddis cost`, and by label the digest of the settings and the seconds; empty without one."""
    path = Path(study.folder) / COST
    try:
        content: Any = read_json(path) if path.exists() else {"device": "", "jobs": {}}
        return str(content["device"]), {label: (str(digest), float(s)) for label, (digest, s) in content["jobs"].items()}
    except (InputError, KeyError, TypeError, ValueError, AttributeError):
        return "", {}
