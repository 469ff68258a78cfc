"""What is to be made again, and why: decided from the records of a study's stages and nothing else.

A result is stale when its configuration changed, the version of its kind (both are in `Study.inputs`), or what it was made from.
File times and Snakemake's own notes do not count, so that a study that was copied, moved or brought from another machine is as
finished as it was there. Quick: files are not read, their recorded digests are.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ddis.config import Study
from ddis.reading import system_reason
from ddis.stages.records import Step, inputs_of, name_of, outputs_of, read_record, record_name, steps, tuning_steps

_SHOWN = 60  # characters of a value
_OF_OTHERS = ("data", "models", "samples", "references", "curves")  # parts of `Study.inputs` that other steps have made


def work(study: Study) -> dict[str, str]:
    """Why steps of a study are to be run, by label; a step that is not named is as it should be."""
    wanted = [*steps(study)[1:], *tuning_steps(study)]
    records = {step.label: read_record(study.folder / record_name(step)) for step in wanted}
    made = {name: digest for record in records.values() if record for name, digest in record["outputs"].items()}
    reasons: dict[str, str] = {}
    again: set[str] = set()
    for step in wanted:
        outputs, record = outputs_of(study, step), records[step.label]
        missing = [path for path in outputs if not path.is_file()]
        renewed = [name for path in inputs_of(study, step) if (name := name_of(study, path)) in again]
        if missing:
            reasons[step.label] = f"{name_of(study, missing[0])} is missing"
        elif record is None:
            reasons[step.label] = "no record tells how it was made"
        elif own := own_changes(study, step, record):
            reasons[step.label] = ", ".join(own)
        elif renewed:
            reasons[step.label] = f"{renewed[0]} is made again"
        elif stale := stale_reason(study, step, record, made):
            reasons[step.label] = stale
        if step.label in reasons:
            again |= {name_of(study, path) for path in outputs}
    return reasons


def stale_reason(study: Study, step: Step, record: Mapping[str, Any], made: Mapping[str, str | OSError]) -> str | None:
    """Why the files of a step are not what the study would make now; `made`: digests by name, or why a file cannot be read."""
    if step.stage != "study" and record.get("configuration") != step.digest(study):
        changes = own_changes(study, step, record)
        return "made with another configuration" + (f": {', '.join(changes)}" if changes else "")
    for path in inputs_of(study, step):
        name = name_of(study, path)
        now = made.get(name)
        if isinstance(now, OSError):
            return f"made from {name}, which cannot be read now: {system_reason(now)}"
        if now is not None and record["inputs"].get(name) != now:
            return f"made from another {name}"
    return None


def own_changes(study: Study, step: Step, record: Mapping[str, Any]) -> list[str]:
    """What a step's own settings and versions were and are, where they differ, those of what it is made from aside."""
    if record.get("configuration") == step.digest(study):
        return []
    before = dict(_flat(record.get("settings") or {}))
    now = dict(_flat(json.loads(json.dumps(study.inputs(step.stage, **step.what)))))
    keys = [key for key in dict.fromkeys([*before, *now]) if key.partition(".")[0] not in _OF_OTHERS]
    return [_change(key, before, now) for key in keys if before.get(key) != now.get(key)] if before else []


def _change(key: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    texts = [json.dumps(values[key])[:_SHOWN] if key in values else "" for values in (before, now)]
    was, is_ = texts
    return f"{key} was {was}, is {is_}" if was and is_ else f"{key} {is_} is new" if is_ else f"{key} {was} is gone"


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of everything in nested dictionaries."""
    if isinstance(value, dict) and value:
        for name, part in value.items():
            yield from _flat(part, f"{key}.{name}" if key else name)
    else:
        yield key, value
