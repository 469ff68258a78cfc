"""The local record of a stage: `results/<study>/tracking/<stage>.jsonl`, one JSON object a line.

Lines have `id` (`<attempt>-<number>`, unique), `kind` and `time` (ms since 1970). Kinds:
- `start`: study, stage, key (of stage and parameters), parameters, tags; the tag `ddis.run` is the id of the run's first attempt
- `metrics` (step, values), `tag` (key, value), `artifact` (path, folder, bytes, sha256)
- `end`: status, error
- `sent`: the lines of attempt `of` up to number `through` are in the MLflow run `run_id` at `uri`

A run is the attempts with the same parameters up to the first that finished.
"""

import errno
import fcntl
import hashlib
import json
import logging
import math
import os
import re
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_log = logging.getLogger(__name__)

Line = dict[str, Any]


@dataclass
class Attempt:
    """What a record says of one process that worked on a run.

    `sent` holds the number of the last line that has arrived, by address and by MLflow run.
    """

    start: Line
    lines: list[Line] = field(default_factory=list)
    sent: dict[str, int] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return place(self.start)[0]

    @property
    def end(self) -> Line | None:
        """The line that says how it ended; None of a process that runs or was killed outright."""
        return self.lines[-1] if self.lines[-1]["kind"] == "end" else None

    def unsent(self, target: str) -> list[Line]:
        """The lines that are not known to have arrived at an address or in a run."""
        return [line for line in self.lines if place(line)[1] > self.sent.get(target, 0)]


class Record:
    """The record as one attempt writes it; several processes may append to the same file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.attempt_id = uuid.uuid4().hex[:12]
        self._number = 0
        self._broken = False
        self._lock = threading.Lock()

    def read(self) -> list[Line]:
        """What is in the record so far; a warning and nothing where it cannot be read."""
        try:
            return read_record(self.path)
        except OSError as reason:
            self._give_up(reason)
            return []

    def line(self, kind: str, **content: Any) -> Line:
        """The next line, not written yet."""
        with self._lock:
            self._number += 1
            return {"id": f"{self.attempt_id}-{self._number}", "kind": kind, "time": time.time_ns() // 10**6, **content}

    def write(self, line: Line) -> None:
        """Appends a line; after the first failure a warning, and nothing more is written."""
        if self._broken:
            return
        try:
            self.append(line)
        except OSError as reason:
            self._give_up(reason)

    def append(self, line: Line) -> None:
        """Appends a line. Raises OSError."""
        text = json.dumps(line, default=json_value) + "\n"
        with self._lock:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab+", buffering=0) as file:
                # On a network disk two machines would write over each other's lines. Not every disk has locks.
                with suppress(OSError):
                    fcntl.flock(file, fcntl.LOCK_EX)
                if file.seek(0, os.SEEK_END):
                    file.seek(-1, os.SEEK_END)
                    # A killed process may have left half a line.
                    text = text if file.read(1) == b"\n" else "\n" + text
                data = text.encode()
                if file.write(data) != len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def sent(self, of: str, through: int, run_id: str, uri: str) -> Line:
        """The line that says that attempt `of` is in MLflow up to the line of number `through`."""
        return self.line("sent", of=of, through=through, run_id=run_id, uri=uri)

    def _give_up(self, reason: OSError) -> None:
        self._broken = True
        _log.warning("cannot write the tracking record %s: %s; going on without it", self.path, reason.strerror)


def record_path(study: str, stage: str) -> Path:
    """Where the local record of a stage is; raises ValueError for a name that would lead elsewhere."""
    for what, name in (("study", study), ("stage", stage)):
        if not all(re.fullmatch(r"[\w-][\w.-]*", part) for part in name.split("/")):
            raise ValueError(f"{what} {name!r}: letters, digits, '_', '-' and '.' are accepted, in parts divided by '/'")
    return Path("results", study, "tracking", f"{stage}.jsonl")


def read_record(path: Path) -> list[Line]:
    """The lines of a local record in their order; one that a killed process left half-written is skipped."""
    lines = []
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    for line in text.split("\n"):
        try:
            content = json.loads(line)
            if isinstance(content, dict) and isinstance(content["kind"], str) and place(content):
                lines.append(content)
        except (ValueError, KeyError, AttributeError):
            continue
    return lines


def place(line: Line) -> tuple[str, int]:
    """Attempt and number of a line. Raises ValueError, KeyError or AttributeError if it has none."""
    attempt, _, number = line["id"].rpartition("-")
    return attempt, int(number)


def runs_of(lines: Sequence[Line]) -> dict[str, list[Attempt]]:
    """The attempts of every run in a record, by the run's tag `ddis.run`, both in the order of their start."""
    attempts: dict[str, Attempt] = {}
    for line in lines:
        owner = line.get("of") or place(line)[0]
        if line["kind"] == "start":
            attempts[owner] = Attempt(line)
        if owner not in attempts:
            continue
        if line["kind"] == "sent":
            sent = attempts[owner].sent
            sent |= {target: max(line["through"], sent.get(target, 0)) for target in (line["uri"], line["run_id"])}
        else:
            attempts[owner].lines.append(line)
    runs: dict[str, list[Attempt]] = {}
    for attempt in attempts.values():
        if key := attempt.start["tags"].get("ddis.run"):
            runs.setdefault(key, []).append(attempt)
    return runs


def unfinished(lines: Sequence[Line], key: str) -> list[Attempt]:
    """The attempts so far of the run that an attempt with these settings goes on with; none if it begins a new one."""
    runs = [attempts for attempts in runs_of(lines).values() if attempts[0].start["key"] == key]
    return runs[-1] if runs and outcome(runs[-1])[0] != "FINISHED" else []


def outcome(attempts: Sequence[Attempt]) -> tuple[str, int]:
    """How a run ended, and when (ms since 1970): its first attempt that finished, else its last; empty if that has no end."""
    ends = [attempt.end for attempt in attempts if attempt.end]
    finished = [end for end in ends if end["status"] == "FINISHED"]
    last = attempts[-1]
    end = finished[0] if finished else last.end
    return (end["status"], end["time"]) if end else ("", last.lines[-1]["time"])


def tags_of(attempts: Sequence[Attempt]) -> dict[str, str]:
    """The tags of a run: those of a later attempt replace those of an earlier one, whose error is forgotten."""
    tags: dict[str, str] = {}
    for attempt in attempts:
        tags.pop("ddis.error", None)
        tags |= attempt.start["tags"]
        tags |= {line["key"]: line["value"] for line in attempt.lines if line["kind"] == "tag"}
    return tags


def settings_key(stage: str, parameters: Mapping[str, Any]) -> str:
    """16 hexadecimal digits of a stage and its parameters."""
    text = json.dumps([stage, parameters], sort_keys=True, default=json_value)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested mappings as one, keys joined with dots, values as text (lists as JSON)."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{name}.")
        elif isinstance(value, list | tuple | Mapping):
            flat[name] = json.dumps(value, default=json_value)
        else:
            flat[name] = str(value)
    return flat


def json_number(value: float) -> float | str:
    """JSON knows no infinity; float() reads the text back."""
    return value if math.isfinite(value) else str(value)


def json_value(value: Any) -> Any:
    """What JSON writes for a value that it does not know: numpy's and torch's scalars as numbers, the rest as text."""
    return value.item() if hasattr(value, "item") else str(value)
