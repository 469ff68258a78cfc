"""The run of a stage while it is at work: each event goes to its local record first, then to MLflow."""

import logging
import math
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ddis.provenance import file_digest, peak_memory_mb
from ddis.tracking.process import process_tags
from ddis.tracking.record import (
    Attempt,
    Line,
    Record,
    flatten,
    json_number,
    place,
    record_path,
    settings_key,
    unfinished,
)
from ddis.tracking.signals import Terminated
from ddis.tracking.tracker import user
from ddis.tracking.watcher import Watcher

_log = logging.getLogger(__name__)

SEND_SECONDS = 5.0
# How long MLflow may keep a stage waiting, and the set-up of a study, where it may have to make its tables on a slow disk.
PATIENCE_SECONDS, STUDY_PATIENCE_SECONDS = 60.0, 120.0
KILLED_LIMIT_SECONDS = 10.0


def ensure_study(study: str, config_path: Path, enabled: bool = True) -> None:
    """Create the database's tables, the study's experiment and its parent run where they are missing; attach the configuration.

    Called once, in a job that all stages depend on. Never raises because of MLflow.
    """
    watcher = Watcher(study, f"the study's configuration is in {config_path}", enabled, STUDY_PATIENCE_SECONDS)

    def create() -> None:
        watcher.connect()
        watcher.tracker.open_study(study, config_path)

    watcher.call(create)
    watcher.close()


@contextmanager
def stage_run(
    study: str, stage: str, parameters: Mapping[str, Any], tags: Mapping[str, Any] | None = None, enabled: bool = True
) -> Iterator["StageRun"]:
    """The MLflow run of a stage, nested under its study's parent run, and its local record.

    `stage` names the work within the study, such as `train/poisson/prior`; it is the name of the run and, with slashes as
    folders, of the record. `parameters` are the settings that the result depends on: a stage called again with the same ones
    continues its unfinished run (tag `ddis.attempt`), otherwise a new run begins. `tags` say what may differ between attempts
    (commit, device, digest of the data). Nested mappings are flattened with dots.

    The run ends FINISHED, FAILED (an exception), or KILLED (KeyboardInterrupt, Terminated); exceptions pass through. Raises
    ValueError for a name that is no relative path of plain words, and nothing because of MLflow or a full disk.
    """
    run = StageRun(study, stage, parameters, tags or {}, enabled)
    status, error = "FAILED", ""
    try:
        run._open()
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
        run._close(status, error)


class StageRun:
    """What `stage_run` gives to a stage: metrics, artifacts and tags. No method raises because of MLflow."""

    def __init__(self, study: str, stage: str, parameters: Mapping[str, Any], tags: Mapping[str, Any], enabled: bool) -> None:
        self.study, self.stage = study, stage
        self._begin = time.monotonic()
        self._due = self._begin + SEND_SECONDS
        self._run_id = ""
        self._unsent: list[Line] = []
        self.record = Record(record_path(study, stage))
        key = settings_key(stage, parameters)
        earlier = unfinished(self.record.read(), key)
        self.attempt = len(earlier) + 1
        fallback = f"its record is complete in {self.record.path}: `ddis runs sync` sends it"
        self._watcher = Watcher(stage, fallback, enabled, PATIENCE_SECONDS)
        identity = {
            "ddis.kind": "stage",
            "ddis.study": study,
            "ddis.stage": stage,
            "ddis.key": key,
            "ddis.run": earlier[0].id if earlier else self.record.attempt_id,
            "ddis.attempt": str(self.attempt),
            "mlflow.user": user(),
            "mlflow.source.name": f"ddis {shlex.join(sys.argv[1:])}",
        }
        start = self._write(
            "start",
            study=study,
            stage=stage,
            key=key,
            mlflow=self._watcher.on,
            parameters=parameters,
            tags=identity | process_tags() | flatten(tags),
        )
        self._attempts = [*earlier, Attempt(start)]

    def metrics(self, values: Mapping[str, Any], step: int = 0) -> None:
        """Numbers at a step. They reach MLflow in batches, every few seconds and at the end."""
        self._write("metrics", step=step, values={name: json_number(float(value)) for name, value in values.items()})
        if time.monotonic() >= self._due:
            self._send()

    def tag(self, key: str, value: Any) -> None:
        """A word about this attempt; sent with the next metrics."""
        self._write("tag", key=key, value=str(value))

    def artifact(self, path: Path | str, folder: str | None = None) -> None:
        """Attach a file of the study; of one above 64 MiB only the path and SHA-256, as a tag. A missing file is a warning."""
        path = Path(path)
        try:
            size, digest = path.stat().st_size, file_digest(path)
        except OSError as reason:
            _log.warning("%s: cannot attach %s: %s", self.stage, path, reason.strerror or reason)
            return
        self._write("artifact", path=str(path), folder=folder, bytes=size, sha256=digest)
        self._send()

    def _write(self, kind: str, **content: Any) -> Line:
        line = self.record.line(kind, **content)
        # First of all, so that a line cut off by a signal is not taken for one that was sent.
        if self._watcher.on:
            self._unsent.append(line)
        self.record.write(line)
        return line

    def _open(self) -> None:
        watcher, start = self._watcher, self._attempts[-1].start

        def open_run() -> None:
            watcher.connect()
            run = watcher.tracker.open_run(self._attempts)
            self._run_id = run.info.run_id
            watcher.tracker.go_on(run)
            watcher.tracker.set_tags(self._run_id, start["tags"])
            self._note(start)

        watcher.call(open_run)
        del self._unsent[:1]

    def _send(self, limit: float = math.inf) -> None:
        begin, lines = time.monotonic(), list(self._unsent)

        def send() -> None:
            tracker = self._watcher.tracker
            tracker.send(self._run_id, lines)
            tracker.set_tags(self._run_id, {line["key"]: line["value"] for line in lines if line["kind"] == "tag"})
            if lines[-1]["kind"] == "end":
                tracker.finish(self._run_id, lines[-1]["status"], lines[-1]["time"], self.attempt)
            self._note(lines[-1])

        if lines:
            self._watcher.call(send, limit)
        # Kept until now: an interruption while waiting sends them once more, which changes nothing.
        del self._unsent[: len(lines)]
        now = time.monotonic()
        # A slow server may take a tenth of the stage's time, not more.
        self._due = now + max(SEND_SECONDS, 10 * (now - begin))

    def _note(self, line: Line) -> None:
        """All up to this line is in MLflow."""
        attempt, number = place(line)
        self.record.write(self.record.sent(attempt, number, self._run_id, self._watcher.uri))

    def _close(self, status: str, error: str) -> None:
        self._due = math.inf
        self.metrics({"seconds": time.monotonic() - self._begin, "peak_memory_mb": peak_memory_mb()}, self.attempt)
        if error:
            self.tag("ddis.error", error)
        self._write("end", status=status, error=error)
        self._send(KILLED_LIMIT_SECONDS if status == "KILLED" else math.inf)
        self._watcher.close()
