"""A step of a study is one call of a stage: its record, and whether what it made is of the study's settings.

Settings are compared, not digests of them: one that a record does not know is new in the code, and counts if it is not at its
default; one that the code no longer knows counts if it was not at what is now always so.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ddis.config import Study
from ddis.errors import DamagedError, InputError
from ddis.files import read_json
from ddis.versions import ALWAYS

RECORDS = "provenance"
OF_OTHERS = (
    "data",
    "models",
    "samples",
    "references",
    "curves",
    "guidance",
)  # parts of `Study.inputs` that other steps have made
_SHOWN = 60  # characters of a value
_REMEDY = "run snakemake, which makes it again, or restore the configuration"

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Step:
    """One call of a stage: its name, and its arguments as in `Study.inputs`."""

    stage: str
    arguments: dict[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Such as `train/poisson/prior`, the name of its record too."""
        return "/".join([self.stage, *self.arguments.values()])

    def digest(self, study: Study) -> str:
        """Digest of what its result depends on."""
        return study.digest(self.stage, **self.arguments)


def record_name(step: Step) -> str:
    """Where the record of a step is, from the study's folder."""
    return f"{RECORDS}/{step.label}.json"


def read_record(path: Path) -> dict[str, Any] | None:
    """A stage's record; None if there is none, or what is there is none. Raises InputError where it cannot be read."""
    try:
        record = read_json(path) if path.exists() else {}
        parts = [record[key] for key in ("inputs", "outputs")]
    except (DamagedError, KeyError, TypeError):
        return None
    return record if all(isinstance(part, dict) for part in parts) else None


def check_settings(study: Study, step: Step, path: Path, configuration: str | None) -> None:
    """Raises InputError if a file, which bears a digest of its configuration, was made with other settings than the study's."""
    if configuration == step.digest(study):
        return
    record = read_record(study.folder / record_name(step))
    if record is None or record.get("configuration") != configuration:
        raise InputError(f"{path} was made with another configuration than the study's; {_REMEDY}")
    if other := changes(study, step, record, without=OF_OTHERS[1:]):
        raise InputError(f"{path} was made with another configuration than the study's ({', '.join(other)}); {_REMEDY}")
    for model, used in record["settings"].get("models", {}).items():
        check_settings(study, Step("train", {"problem": step.arguments["problem"], "model": model}), path, used)


def changes(study: Study, step: Step, record: Record, without: Sequence[str]) -> list[str]:
    """What a step's settings and versions were and are, where they differ, parts of `Study.inputs` aside."""
    if step.stage == "study" or record.get("configuration") == step.digest(study):
        return []
    before, now, chosen = (
        dict(flat({key: value for key, value in inputs.items() if key not in without}))
        for inputs in (
            record.get("settings") or {},
            json.loads(json.dumps(study.inputs(step.stage, **step.arguments))),
            study.chosen(step.stage, **step.arguments),
        )
    )
    if not before:
        return ["made with another configuration"]
    other = [key for key in before if key in now and before[key] != now[key]]
    new = [key for key in now if key not in before and key in chosen and now[key] != ALWAYS.get(key, ...)]
    gone = [key for key in before if key not in now and before[key] != ALWAYS.get(key, ...)]
    return [_change(key, before, now) for key in other + new + gone]


def _change(key: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    was, is_ = (json.dumps(values[key])[:_SHOWN] if key in values else "" for values in (before, now))
    return f"{key} was {was}, is {is_}" if was and is_ else f"{key} {is_} is new" if is_ else f"{key} {was} is gone"


def flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of everything in nested dictionaries, and in lists of such."""
    if isinstance(value, list) and value and all(isinstance(part, dict) for part in value):
        value = {str(place): part for place, part in enumerate(value)}
    if not isinstance(value, dict):
        yield key, value
        return
    for name, part in value.items():
        yield from flat(part, f"{key}.{name}" if key else name)
