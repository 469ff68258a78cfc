"""`ddis runs sync`: sends to MLflow what the records hold and it does not, exactly once.

What has arrived is asked of MLflow itself: the tag `ddis.sent` of a run counts the lines of its record that are in it. So the
records of a copied folder, or those whose database was lost, are sent again, and an exporter that was killed goes on where it
was: it repeats at most its last portion, which changes nothing (see `tracker`). One exporter at a time works on a study.
"""

import fcntl
import json
import logging
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from ddis.errors import InputError
from ddis.files import write_error
from ddis.tracking.parent import Parent
from ddis.tracking.record import Line
from ddis.tracking.runs import Run, TrackingRecord
from ddis.tracking.tracker import Tracker, answering, shown, shown_uri

_log = logging.getLogger(__name__)

PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, LAST_SECONDS = 2.0, 60.0, 60.0
LINES_PER_PORTION = 1000


class Exporter:
    """Sends the records of one study. After an exception it is of no use any more: what has arrived is to be asked again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._records: dict[Path, TrackingRecord] = {}
        self._tracker: Tracker | None = None

    def step(self, last: bool) -> list[str]:
        """Sends what is new; returns what MLflow refused. `last`: no more is to come, so that the study's run may end."""
        for path in sorted((self.folder / "tracking").rglob("*.jsonl")):
            self._records.setdefault(path, TrackingRecord(path)).read()
        runs = [run for record in self._records.values() for run in record.runs]
        if not runs or not (last or any(run.unsent or run.state != run.shown for run in runs)):
            return []
        if self._tracker is None:
            self._tracker = Tracker()
            self._experiment = self._tracker.experiment(self.folder.name)
            self._known = self._tracker.runs(self._experiment)
            begin, known = min(run.start["time"] for run in runs), self._known.get(self.folder.name)
            self._parent = Parent(self._tracker, self._experiment, self.folder, begin, known)
        refused = []
        for run in runs:
            try:
                self._send(self._tracker, run)
            except Exception as reason:
                # Of a tracker that is down nothing is to be expected; one that answers may take the others.
                self._tracker.check()
                refused.append(f"{run.stage} ({shown(reason)})")
        self._parent.settle({run.stage: run for run in runs}, last)
        return refused

    def _send(self, tracker: Tracker, run: Run) -> None:
        """Brings a run to the state of its record; one that was deleted in MLflow is left alone."""
        known = self._known.get(run.key)
        if known and known.info.lifecycle_stage == "deleted":
            run.unsent, run.shown = [], run.state
            return
        if known and not run.id:
            run.id, run.sent = known.info.run_id, int(known.data.tags.get("ddis.sent", 0))
            run.shown = known.info.status, known.info.end_time if known.info.status != "RUNNING" else None
            del run.unsent[: run.sent]
        elif not run.id:
            tags = {"ddis.kind": "stage", "ddis.study": self.folder.name, "ddis.stage": run.stage, "ddis.run": run.key}
            tags["mlflow.parentRunId"] = self._parent.id
            run.id = tracker.create(self._experiment, run.stage, run.start["time"], tags)
        while run.unsent:
            portion = run.unsent[:LINES_PER_PORTION]
            self._send_lines(tracker, run, portion)
            run.sent += len(portion)
            tracker.log(run.id, tags={"ddis.sent": str(run.sent)})
            del run.unsent[: len(portion)]
        if run.state != run.shown:
            tracker.set_state(run.id, *run.state, run.error)
            run.shown = run.state
            _log.info("%s: %s is in MLflow, %s", self.folder.name, run.stage, run.status)

    def _send_lines(self, tracker: Tracker, run: Run, lines: list[Line]) -> None:
        numbers = [line for line in lines if line["kind"] == "metrics"]
        metrics = [(name, value, line["time"], line["step"]) for line in numbers for name, value in line["values"].items()]
        tracker.log(run.id, metrics)
        tags: dict[str, str] = {}
        for line in lines:
            match line["kind"]:
                case "start":
                    tracker.log(run.id, parameters=flatten(line["parameters"]))
                    tags |= line["tags"]
                case "tag":
                    tags[line["key"]] = line["value"]
                case "artifact" if "/" in run.stage:
                    tracker.attach(run.id, self.folder / line["path"], line)
                case "artifact":  # of the whole study
                    tracker.attach(self._parent.id, self.folder / line["path"], line, str(Path(line["path"]).parent).strip("."))
                case "dataset":
                    tracker.add_dataset(run.id, self.folder / line["path"], line)
                case "network":
                    tracker.add_network(run.id, self.folder, line)
        tracker.log(run.id, tags=tags)


def sync(study: str | None = None) -> None:
    """Sends what is missing of one study, or of all under results/, to MLflow.

    Raises InputError for a study without records, a tracker that does not answer, and runs that it does not take.
    """
    folders = sorted(folder.parent for folder in Path("results").glob("*/tracking") if study in (None, folder.parent.name))
    if study and not folders:
        raise InputError(f"study {study!r} has no records: there is no results/{study}/tracking")
    for folder in folders:
        if (lock := _lock(folder)) is None:
            _log.info("%s: another process sends its records already", folder.name)
            continue
        with lock:
            with answering():
                refused = Exporter(folder).step(last=True)
            _report(folder, refused)


def follow(study: str) -> None:
    """Sends what the stages of a study record, while they do, until standard input ends; that is, with the process that started
    this one. Raises InputError if by then something could not be sent."""
    folder, ending = Path("results", study), threading.Event()
    threading.Thread(target=_await_end, args=(ending,), daemon=True).start()
    (folder / "tracking").mkdir(parents=True, exist_ok=True)
    if (lock := _lock(folder)) is None:
        _log.info("%s: another process sends its records; waiting for its end", study)
    while lock is None and not ending.wait(PAUSE_SECONDS):
        lock = _lock(folder)
    if lock is None:
        return
    os.nice(5)  # the jobs go first
    exporter, pause, last, refused = Exporter(folder), PAUSE_SECONDS, False, list[str]()
    with lock:
        while not last:
            last = ending.wait(pause)
            try:
                with answering():
                    refused = exporter.step(last)
                pause = PAUSE_SECONDS
            except InputError as error:
                if last:
                    raise
                if pause == PAUSE_SECONDS:
                    _log.warning("%s", error)
                exporter, pause = Exporter(folder), min(2 * pause, LONGEST_PAUSE_SECONDS)
    _report(folder, refused)


def _report(folder: Path, refused: list[str]) -> None:
    if refused:
        raise InputError(f"{folder.name}: {len(refused)} runs could not be sent: {'; '.join(refused)}")
    _log.info("%s: MLflow at %s has all of it", folder.name, shown_uri())


def _await_end(ending: threading.Event) -> None:
    """Waits for the end of standard input; the last step may then take `LAST_SECONDS`, whatever the tracker does."""
    while os.read(0, 4096):
        pass
    ending.set()
    time.sleep(LAST_SECONDS)
    _log.error("MLflow at %s takes longer than %.0f s", shown_uri(), LAST_SECONDS)
    os._exit(1)


def _lock(folder: Path) -> BinaryIO | None:
    """What makes this process the only exporter of a study; None if another one is."""
    path = folder / "tracking" / "exporter.lock"
    try:
        file = path.open("ab")
    except OSError as error:
        raise write_error(path, error) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested mappings as one, keys joined with dots, values as text (lists as JSON)."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = json.dumps(value) if isinstance(value, list | Mapping) else str(value)
    return flat
