"""`ddis verify`: every file of a study against the records of its stages. No stage of a study: it writes nothing.

missing  the configuration asks for it, and it is not there
damaged  its SHA-256 is not the recorded one, or it cannot be opened
stale    it was made with another configuration, or from another input than is there now
unknown  no record tells how it was made, or no stage of the configuration makes it
leftover unfinished work of a stage that has ended, of another configuration, or of a killed process; does no harm
"""

import csv
import json
import os
import shlex
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError, safe_open

from ddis.config import Study
from ddis.data.store import PAIRS, SAMPLES, read_attributes
from ddis.errors import InputError
from ddis.provenance import file_digest
from ddis.stages.records import RECORDS, Step, inputs_of, name_of, outputs_of, record_name, steps, tuning_steps

# Written by Snakemake and by tracking; nothing is made from them.
BESIDE = ("logs", "benchmarks", "tracking", RECORDS)


@dataclass(frozen=True)
class Finding:
    """What is wrong with a file, named from the study's folder."""

    kind: str
    name: str
    text: str


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
        print(f"{finding.kind:9}{finding.name}: {finding.text}")
    wrong = [finding for finding in findings if finding.kind != "leftover"]
    for line in repair(study, folder, wrong):
        print(line)
    kinds = {kind: sum(f.kind == kind for f in findings) for kind in dict.fromkeys(f.kind for f in findings)}
    counts = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    verdict = "all is well" + (f" ({counts})" if counts else "") if not wrong else counts
    print(f"{study.study}: {files} files, {size / 1e6:.1f} MB in {time.monotonic() - begin:.1f} s: {verdict}")
    return not wrong


def verify(study: Study, folder: Path) -> tuple[list[Finding], int, int]:
    """What is wrong in a study's folder; number of the files checked, and their bytes."""
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    wanted = steps(study)
    # The curves of `snakemake tune` are no part of the study unless they were asked for.
    for step in tuning_steps(study):
        if {record_name(step), *(name_of(study, path) for path in outputs_of(study, step))} & present:
            wanted.append(step)
    records = {step.label: read_record(folder / record_name(step)) for step in wanted}
    names = {step.label: [name_of(study, path) for path in outputs_of(study, step)] for step in wanted}
    known = [name for step in wanted for name in names[step.label] if name in present]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = dict(zip(known, pool.map(file_digest, [folder / name for name in known]), strict=True))
    made = {name: digest for record in records.values() if record for name, digest in record["outputs"].items()}
    findings = []
    for step in wanted:
        stale = stale_reason(study, step, records[step.label], made)
        for name in names[step.label]:
            finding = check_file(folder, name, records[step.label], found.get(name), stale)
            findings += [Finding(*finding)] if finding else []
    findings += others(folder, present - set(known), findings)
    return findings, len(known), sum((folder / name).stat().st_size for name in known)


def read_record(path: Path) -> dict[str, Any] | None:
    """A stage's record; None if there is none, or what is there is none."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        parts = [record[key] for key in ("inputs", "outputs")]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return record if all(isinstance(part, dict) for part in parts) else None


def stale_reason(study: Study, step: Step, record: dict[str, Any] | None, made: dict[str, str]) -> str | None:
    """Why the files of a step are not what the study would make now; `made`: digests of all recorded outputs."""
    if record is None:
        return None
    if step.stage != "study" and record.get("configuration") != step.digest(study):
        return "made with another configuration"
    for path in inputs_of(study, step):
        name = name_of(study, path)
        # A file of the study that is damaged is reported itself; what was made from the whole one is good.
        now = made.get(name) if path.is_relative_to(study.folder) else file_digest(path)
        if now is not None and record["inputs"].get(name) != now:
            return f"made from another {name}"
    return None


def check_file(
    folder: Path, name: str, record: dict[str, Any] | None, digest: str | None, stale: str | None
) -> tuple[str, str, str] | None:
    """(kind, name, text) of what is wrong with an output of a step, None if nothing is."""
    if digest is None:
        return "missing", name, "it has not been made"
    broken = broken_reason(folder / name)
    recorded = record["outputs"].get(name) if record else None
    if recorded is not None and digest != recorded:
        return "damaged", name, broken or f"SHA-256 {digest[:12]}..., recorded {recorded[:12]}..."
    if broken:
        return "damaged", name, broken
    if recorded is None:
        return "unknown", name, "no record tells how it was made"
    return ("stale", name, stale) if stale else None


def broken_reason(path: Path) -> str | None:
    """Why a file cannot be read as what its name says; None if it can."""
    try:
        _CHECKS[path.suffix](path)
    except (InputError, OSError, ValueError, KeyError, SafetensorError, yaml.YAMLError, csv.Error) as error:
        return " ".join(f"cannot be read: {error}".replace(f"{path} ", "").split())
    return None


def _check_hdf5(path: Path) -> None:
    read_attributes(path, PAIRS if path.stem in ("train", "validation", "test") else SAMPLES)


def _check_safetensors(path: Path) -> None:
    with safe_open(path, framework="numpy") as file:
        json.loads(file.metadata()["ddis"])


def _check_csv(path: Path) -> None:
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file, strict=True)
    if any(len(row) != len(header) for row in rows):
        raise ValueError("a row has not as many cells as the header")


def _check_png(path: Path) -> None:
    content = path.read_bytes()
    if not (content.startswith(b"\x89PNG\r\n") and content.endswith(b"IEND\xaeB`\x82")):
        raise ValueError("not a whole PNG picture")


def _check_text(path: Path) -> None:
    if not path.read_text(encoding="utf-8").strip():
        raise ValueError("it is empty")


_CHECKS = {
    ".h5": _check_hdf5,
    ".safetensors": _check_safetensors,
    ".csv": _check_csv,
    ".png": _check_png,
    ".json": lambda path: json.loads(path.read_text(encoding="utf-8")),
    ".yaml": lambda path: yaml.safe_load(path.read_text(encoding="utf-8")),
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
    again = [f for f in wrong if f.name != "config.yaml" and "no stage" not in f.text]
    lines = []
    if len(again) < len(wrong) and any(f.name == "config.yaml" for f in wrong):
        lines.append("repair:  ddis study --config FILE, with the configuration that the study was made with")
    if again:
        present = [shlex.quote(str(folder / f.name)) for f in again if f.kind != "missing"]
        tuned = {name_of(study, path) for step in tuning_steps(study) for path in outputs_of(study, step)}
        targets = " all tune" if tuned & {f.name for f in again} else ""
        remove = f"rm {' '.join(present)}; " if present else ""
        lines.append(f"repair:  {remove}snakemake --cores all{targets} --configfile {shlex.quote(str(folder / 'config.yaml'))}")
    return lines
