"""`ddis verify`: every file of a study against the records of its stages. No stage of a study: it writes nothing.

missing     the configuration asks for it, and it is not there
damaged     its SHA-256 is not the recorded one, or its bytes are none of a file of its kind
unreadable  the system does not let it be read, or another program has it open: nothing is known of its content
stale       it was made with another configuration, or from another input than is there now, or from one that is stale
unknown     no record tells how it was made, or no stage of the configuration makes it
leftover    unfinished work of a stage that has ended, of another configuration, or of a killed process; does no harm

Only damaged files that a record tells to be a stage's are named with `rm`; the others may be somebody's only copy.
"""

import csv
import io
import os
import shlex
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddis.config import Study
from ddis.data.hdf5 import read_attributes
from ddis.data.references import REFERENCES
from ddis.data.store import PAIRS, SAMPLES
from ddis.errors import DamagedError, InputError
from ddis.files import read_json, read_text
from ddis.models.checkpoint import check_header
from ddis.provenance import file_digest
from ddis.reading import REPAIR, cannot_read, system_reason
from ddis.stages.records import asked_steps, check_steps, inputs_of, name_of, outputs_of, paper_steps, steps, tuning_steps
from ddis.stages.remaining import COST
from ddis.stages.stale import stale
from ddis.steps import RECORDS, read_record, record_name
from ddis.yaml_text import read_yaml

# Written by Snakemake, by tracking and by `ddis cost`; nothing is made from them.
BESIDE = ("logs", "benchmarks", "tracking", RECORDS, COST)


@dataclass(frozen=True)
class Finding:
    """What is wrong with a file, named from the study's folder; recorded: a record tells that a stage made it."""

    kind: str
    name: str
    text: str
    recorded: bool = False


def find_study(given: str) -> Path:
    """The folder of a study, given by its name or by the folder itself. Raises InputError."""
    for folder in (Path("results", given), Path(given)):
        if (folder / "config.yaml").is_file():
            return folder
    raise InputError(
        f"study {given!r}: there is neither {Path('results', given)}/config.yaml nor {Path(given)}/config.yaml; "
        "`ddis study --config FILE` writes it again"
    )


def run(given: str) -> bool:
    """Prints one line per finding, the command that repairs, and a summary; returns whether all is well."""
    begin, folder = time.monotonic(), find_study(given)
    study = Study.load(folder / "config.yaml")
    findings, files, size = verify(study, folder)
    for finding in findings:
        print(f"{finding.kind:11}{finding.name}: {finding.text}")
    wrong = [finding for finding in findings if finding.kind != "leftover"]
    for line in repair(study, folder, wrong):
        print(line)
    kinds = {kind: sum(f.kind == kind for f in findings) for kind in dict.fromkeys(f.kind for f in findings)}
    counts = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    verdict = "all is well" + (f" ({counts})" if counts else "") if not wrong else counts
    print(f"{study.study}: {files} files, {size / 1e6:.1f} MB in {time.monotonic() - begin:.1f} s: {verdict}", flush=True)
    return not wrong


def verify(study: Study, folder: Path) -> tuple[list[Finding], int, int]:
    """What is wrong in a study's folder; number of the files checked, and their bytes."""
    present = files_in(folder)
    wanted = steps(study)
    # What has a target of its own is no part of the study unless it was asked for.
    for step in asked_steps(study):
        if {record_name(step), *(name_of(study, path) for path in outputs_of(study, step))} & present:
            wanted.append(step)
    records = {step.label: read_record(folder / record_name(step)) for step in wanted}
    names = {step.label: [name_of(study, path) for path in outputs_of(study, step)] for step in wanted}
    known = [name for step in wanted for name in names[step.label] if name in present]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = dict(zip(known, pool.map(digest_of, [folder / name for name in known]), strict=True))
    made = {name: digest for record in records.values() if record for name, digest in record["outputs"].items()}
    # A file of the study that is damaged is reported itself; what was made from the whole one is good.
    inputs = [path for step in wanted for path in inputs_of(study, step) if not path.is_relative_to(study.folder)]
    made |= {name_of(study, path): digest_of(path) for path in inputs}
    reasons = stale(study, wanted, records, made, {})
    findings = []
    for step in wanted:
        for name in names[step.label]:
            finding = check_file(folder, name, records[step.label], found.get(name), reasons.get(step.label))
            findings += [finding] if finding else []
    findings += others(folder, present - set(known), findings)
    return findings, len(known), sum((folder / name).stat().st_size for name in known)


def files_in(folder: Path) -> set[str]:
    """The files in a folder and below, named from it. Raises InputError for a folder that cannot be looked into."""

    def stop(error: OSError) -> None:
        raise cannot_read(Path(error.filename), error) from error

    paths = (Path(parent, name) for parent, _, names in os.walk(folder, onerror=stop) for name in names)
    return {path.relative_to(folder).as_posix() for path in paths if path.is_file()}


def digest_of(path: Path) -> str | OSError:
    """SHA-256 of a file, or why it cannot be read."""
    try:
        return file_digest(path)
    except OSError as error:
        return error


def check_file(
    folder: Path, name: str, record: dict[str, Any] | None, digest: str | OSError | None, stale: str | None
) -> Finding | None:
    """What is wrong with an output of a step, None if nothing is."""
    if digest is None:
        return Finding("missing", name, "it has not been made")
    recorded = record["outputs"].get(name) if record else None
    if isinstance(digest, OSError):
        return Finding("unreadable", name, system_reason(digest) or str(digest), recorded is not None)
    kind, text = look_into(folder / name) or (None, "")
    if recorded is None:
        return Finding(kind or "unknown", name, text or "no record tells how it was made; move it away to have it made again")
    if digest != recorded:
        return Finding(kind or "damaged", name, text or f"SHA-256 {digest[:12]}..., recorded {recorded[:12]}...", recorded=True)
    if kind == "damaged":  # a file with the recorded bytes is whole, whoever else has it open
        return Finding(kind, name, text, recorded=True)
    return Finding("stale", name, stale, recorded=True) if stale else None


def look_into(path: Path) -> tuple[str, str] | None:
    """(kind, why) of a file that cannot be read as what its name says; None if it can."""
    try:
        _CHECKS[path.suffix](path)
    except (InputError, OSError, ValueError, KeyError, csv.Error) as error:
        text = " ".join(str(error).partition(f"; {REPAIR}")[0].replace(f"{path} ", "").split())
        cause = error.__cause__ if isinstance(error, InputError) else error
        if isinstance(cause, Exception) and (said := system_reason(cause)):
            return "unreadable", said
        foreign = isinstance(error, InputError) and cause is None and not isinstance(error, DamagedError)
        return ("unknown", f"it {text}; move it away to have it made again") if foreign else ("damaged", text)
    return None


def _check_hdf5(path: Path) -> None:
    kind = path.parents[1].name
    read_attributes(path, PAIRS if kind == "data" else REFERENCES if kind == "references" else SAMPLES)


def _check_csv(path: Path) -> None:
    header, *rows = csv.reader(io.StringIO(read_text(path)), strict=True)
    if any(len(row) != len(header) for row in rows):
        raise ValueError("a row has not as many cells as the header")


def _check_png(path: Path) -> None:
    content = path.read_bytes()
    if not (content.startswith(b"\x89PNG\r\n") and content.endswith(b"IEND\xaeB`\x82")):
        raise ValueError("not a whole PNG picture")


def _check_text(path: Path) -> None:
    if not read_text(path).strip():
        raise ValueError("it is empty")


_CHECKS = {
    ".h5": _check_hdf5,
    ".safetensors": check_header,
    ".csv": _check_csv,
    ".png": _check_png,
    ".json": read_json,
    ".yaml": read_yaml,
    **dict.fromkeys((".md", ".tex", ".html"), _check_text),
}


def others(folder: Path, names: set[str], findings: list[Finding]) -> Iterator[Finding]:
    """Files that no step of the configuration makes, one finding for each, or for each folder of unfinished work."""
    unfinished = any(finding.kind == "missing" for finding in findings)
    work = set()
    for name in sorted(names):
        parts = Path(name).parts
        if parts[0] in BESIDE or name.startswith("work/running/"):
            continue
        hidden = next((i for i, part in enumerate(parts) if part.startswith(".") and part.endswith((".tmp", ".shards"))), None)
        if parts[0] == "work" or hidden is not None:
            work.add("/".join(parts[:3] if hidden is None else parts[: hidden + 1]))
        else:
            yield Finding("unknown", name, "no stage of the configuration makes it; remove it if it is not yours")
    for name in sorted(work):
        path = folder / name
        size = sum(part.stat().st_size for part in (path, *path.rglob("*")) if part.is_file())
        use = "unfinished work" + (", of use if its stage goes on" if unfinished else "")
        yield Finding("leftover", name, f"{use}; rm -r {shlex.quote(str(path))} frees {size / 1e6:.1f} MB")


def repair(study: Study, folder: Path, wrong: list[Finding]) -> list[str]:
    """What to type, if anything can be made again."""
    again = [f for f in wrong if f.name != "config.yaml" and f.kind in ("missing", "damaged", "stale")]
    lines = []
    if any(f.name == "config.yaml" and f.kind != "unreadable" for f in wrong):
        lines.append("repair:  ddis study --config FILE, with the configuration that the study was made with")
    if again:
        remove = [quoted(folder, f) for f in again if f.kind == "damaged" and f.recorded]
        force = [quoted(folder, f) for f in again if f.kind == "stale"]
        own = {"tune": tuning_steps(study), "paper": paper_steps(study), "check": check_steps(study)}
        names = {target: {name_of(study, path) for s in made for path in outputs_of(study, s)} for target, made in own.items()}
        asked = [target for target, files in names.items() if files & {f.name for f in again}]
        targets = " " + " ".join(["all", *asked]) if asked else ""
        command = f"snakemake --cores all{targets} --configfile {shlex.quote(str(folder / 'config.yaml'))}"
        forced = f" --forcerun {' '.join(force)}" if force else ""
        removed = f"rm {' '.join(remove)}; " if remove else ""
        lines.append(f"repair:  {removed}{command}{forced}")
    return lines


def quoted(folder: Path, finding: Finding) -> str:
    return shlex.quote(str(folder / finding.name))
