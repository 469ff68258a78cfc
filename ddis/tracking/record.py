"""The record of a stage: `results/<study>/tracking/<stage>.jsonl`, one JSON object a line, which a stage only appends to.

Lines have `id` (`<attempt>-<number>`, unique), `kind` and `time` (ms since 1970). Kinds:
- `start`: study, stage, parameters, tags
- `metrics`: step, values
- `tag`: key, value
- `artifact`: path, bytes, sha256
- `dataset`: what the stage learns from: name, path, digest, profile (sizes)
- `network`: folder, inputs and outputs (shape by name; -1 is any number)
- `end`: status, error

Paths are from the study's folder, so that it may be moved. While a stage is at work it holds a shared lock (flock) on its record,
which the system releases even after kill -9.
"""

import errno
import fcntl
import json
import logging
import math
import os
import re
import shlex
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from ddis.provenance import file_digest, peak_memory_mb
from ddis.signals import Terminated

_log = logging.getLogger(__name__)

Line = dict[str, Any]
Shapes = Mapping[str, tuple[int, ...]]


@contextmanager
def stage_run(
    study: str, stage: str, parameters: Mapping[str, Any], tags: Mapping[str, str] | None = None
) -> Iterator["StageRun"]:
    """Records a stage from its start to its end.

    `stage` names the work within the study, such as `train/poisson/prior`. `parameters` are the settings that the result depends
    on, `tags` what may differ between attempts (commit, device). The end is FINISHED, FAILED (an exception), or KILLED
    (KeyboardInterrupt, Terminated); exceptions pass through. Raises ValueError for a name that is no relative path of plain
    words, and nothing because of a full disk.
    """
    run = StageRun(study, stage, parameters, tags or {})
    status, error = "FAILED", ""
    try:
        yield run
        status = "FINISHED"
    except (KeyboardInterrupt, Terminated) as reason:
        status, error = "KILLED", type(reason).__name__
        raise
    except SystemExit as reason:
        status, error = ("FAILED", f"exit {reason.code}") if reason.code else ("FINISHED", "")
        raise
    except BaseException as reason:
        error = f"{type(reason).__name__}: {reason}"
        raise
    finally:
        run.close(status, error)


class StageRun:
    """What `stage_run` gives to a stage. The first line that cannot be written is a warning, and the last."""

    def __init__(self, study: str, stage: str, parameters: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        self._stage, self._folder, self._path = stage, Path("results", study), record_path(study, stage)
        self._attempt, self._number, self._begin = uuid.uuid4().hex[:12], 0, time.monotonic()
        self._file: BinaryIO | None = None
        try:
            self._file = _open(self._path)
        except OSError as reason:
            self._give_up(reason)
        tags = {"mlflow.source.name": f"ddis {shlex.join(sys.argv[1:])}", **tags}
        self._write("start", study=study, stage=stage, parameters=parameters, tags=tags)

    def metrics(self, values: Mapping[str, Any], step: int = 0) -> None:
        """Numbers at a step."""
        self._write("metrics", step=step, values={name: json_number(float(value)) for name, value in values.items()})

    def tag(self, key: str, value: Any) -> None:
        """A word about this attempt."""
        self._write("tag", key=key, value=str(value))

    def artifact(self, path: Path | str) -> None:
        """A file of the study. A missing one is a warning."""
        try:
            size, digest = Path(path).stat().st_size, file_digest(path)
        except OSError as reason:
            _log.warning("%s: cannot attach %s: %s", self._stage, path, reason.strerror or reason)
            return
        self._write("artifact", path=self._inside(path), bytes=size, sha256=digest)

    def dataset(self, name: str, path: Path, digest: str, **profile: int) -> None:
        """The file that the stage learns from, and sizes of what it takes of it."""
        self._write("dataset", name=name, path=self._inside(path), digest=digest, profile=profile)

    def network(self, folder: Path, inputs: Shapes, outputs: Shapes) -> None:
        """The folder of a trained network, with the shapes that `ddis.stages.pyfunc` takes and gives."""
        self._write("network", folder=self._inside(folder), inputs=inputs, outputs=outputs)

    @contextmanager
    def loop(self) -> Iterator[None]:
        """Around a training, with the errors of its network, or around sampling: their CPU time, counted as in `close`."""
        begin = _cpu_seconds()
        yield
        self.metrics({"loop_cpu_seconds": _cpu_seconds() - begin})

    def close(self, status: str, error: str) -> None:
        """The last lines; gives up the lock. The CPU time is that of the whole process and of what it started."""
        seconds = {"seconds": time.monotonic() - self._begin, "cpu_seconds": _cpu_seconds()}
        self.metrics({**seconds, "peak_memory_mb": peak_memory_mb()})
        self._write("end", status=status, error=error)
        if self._file:
            self._file.close()

    def _inside(self, path: Path | str) -> str:
        return str(Path(path).relative_to(self._folder) if Path(path).is_relative_to(self._folder) else path)

    def _write(self, kind: str, **content: Any) -> None:
        if self._file is None:
            return
        self._number += 1
        line = {"id": f"{self._attempt}-{self._number}", "kind": kind, "time": time.time_ns() // 10**6, **content}
        data = json.dumps(line).encode() + b"\n"
        try:
            if self._file.write(data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as reason:
            self._give_up(reason)

    def _give_up(self, reason: OSError) -> None:
        self._file = None
        _log.warning("cannot write the tracking record %s: %s; going on without it", self._path, reason.strerror)


def _open(path: Path) -> BinaryIO:
    """The record, ready for the next line, with a lock that says that this process is at work."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("ab+", buffering=0)
    with suppress(OSError):  # not every disk has locks
        fcntl.flock(file, fcntl.LOCK_SH)
    if file.seek(0, os.SEEK_END):
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":  # a killed process has left half a line
            file.write(b"\n")
    return file


def record_path(study: str, stage: str) -> Path:
    """Where the record of a stage is; raises ValueError for a name that would lead elsewhere."""
    for what, name in (("study", study), ("stage", stage)):
        if not all(re.fullmatch(r"[\w-][\w.-]*", part) for part in name.split("/")):
            raise ValueError(f"{what} {name!r}: letters, digits, '_', '-' and '.' are accepted, in parts divided by '/'")
    return Path("results", study, "tracking", f"{stage}.jsonl")


def read_record(path: Path) -> list[Line]:
    """The lines of a record in their order; none if it is not there."""
    return lines_after(path, 0)[0] if path.exists() else []


def lines_after(path: Path, offset: int) -> tuple[list[Line], int]:
    """The whole lines of a record from a byte on, and the byte after them; what a killed process has left is skipped."""
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read()
    data = data[: data.rfind(b"\n") + 1]
    lines = []
    for text in data.split(b"\n"):
        with suppress(ValueError, KeyError, TypeError, AttributeError):
            line = json.loads(text)
            if line["kind"] and attempt_of(line):
                lines.append(line)
    return lines, offset + len(data)


def attempt_of(line: Line) -> str:
    """The attempt that wrote a line."""
    return str(line["id"].rpartition("-")[0])


def _cpu_seconds() -> float:
    """Of this process and of those that it started and has waited for."""
    return sum(os.times()[:4])


def json_number(value: float) -> float | str:
    """JSON knows no infinity; float() reads the text back."""
    return value if math.isfinite(value) else str(value)
