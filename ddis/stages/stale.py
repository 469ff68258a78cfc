"""What is to be made again, and why: decided from the records of a study's stages and nothing else.

A result is stale when its configuration changed, the version of its kind (both are in `Study.inputs`), or what it was made from.
Settings are compared, not digests of them: one that the record does not know is new in the code, and counts if it is not at its
default. File times and Snakemake's own notes do not count, so that a study that was copied, moved or brought from another machine
is as finished as it was there. Quick: files are not read, their recorded digests are.
"""

from collections.abc import Mapping, Sequence

from ddis.config import Study
from ddis.reading import system_reason
from ddis.stages.records import asked_steps, inputs_of, name_of, outputs_of, steps
from ddis.steps import OF_OTHERS, Record, Step, changes, read_record, record_name


def work(study: Study) -> dict[str, str]:
    """Why steps of a study are to be run, by label; a step that is not named is as it should be."""
    wanted = [*steps(study)[1:], *asked_steps(study)]
    records = {step.label: read_record(study.folder / record_name(step)) for step in wanted}
    digests = {name: digest for record in records.values() if record for name, digest in record["outputs"].items()}
    lacking: dict[str, str] = {}
    for step in wanted:
        missing = [path for path in outputs_of(study, step) if not path.is_file()]
        if missing:
            lacking[step.label] = f"{name_of(study, missing[0])} is missing"
        elif records[step.label] is None:
            lacking[step.label] = "no record tells how it was made"
    return stale(study, wanted, records, digests, lacking)


def stale(
    study: Study,
    wanted: Sequence[Step],
    records: Mapping[str, Record | None],
    digests: Mapping[str, str | OSError],
    lacking: Mapping[str, str],
) -> dict[str, str]:
    """Why the files of steps are not what the study would make now, by label; a step comes after those that it reads from.

    digests: by name of a file, or why a file cannot be read. lacking: steps that are to be run for other reasons.
    """
    reasons: dict[str, str] = {}
    again: set[str] = set()
    for step in wanted:
        reason, record = lacking.get(step.label), records[step.label]
        if reason is None and record is not None:
            renewed = [name for path in inputs_of(study, step) if (name := name_of(study, path)) in again]
            own = ", ".join(changes(study, step, record, without=OF_OTHERS))
            reason = own or (f"{renewed[0]} is made again" if renewed else other_input(study, step, record, digests))
        if reason is not None:
            reasons[step.label] = reason
            again |= {name_of(study, path) for path in outputs_of(study, step)}
    return reasons


def other_input(study: Study, step: Step, record: Record, digests: Mapping[str, str | OSError]) -> str | None:
    """The first input of a step that is not the one it was made from."""
    for path in inputs_of(study, step):
        name = name_of(study, path)
        now = digests.get(name)
        if isinstance(now, OSError):
            return f"made from {name}, which cannot be read now: {system_reason(now)}"
        if now is not None and record["inputs"].get(name) != now:
            return f"made from another {name}"
    return None
