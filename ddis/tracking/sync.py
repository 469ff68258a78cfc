"""`ddis runs sync`: sends to MLflow what the local records hold and MLflow does not, exactly once.

What has arrived is noted in the record, portion by portion. A sync that is killed in between sends its last portion again,
which changes nothing (see `tracker`); two at once work one after the other.
"""

import fcntl
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ddis.errors import InputError
from ddis.files import write_error
from ddis.tracking.process import has_ended
from ddis.tracking.record import Attempt, Record, outcome, place, read_record, runs_of, tags_of
from ddis.tracking.tracker import Tracker, answering, shown, tracking_uri, without_password

_log = logging.getLogger(__name__)

_LINES_PER_PORTION = 1000


def sync(study: str | None = None) -> None:
    """Sends what is missing of one study, or of all under results/, to the tracker at MLFLOW_TRACKING_URI (./mlflow.db).

    Raises InputError for a study without records, a tracker that does not answer, and runs that it does not take.
    """
    uri = without_password(tracking_uri())
    folders = [folder for folder in _record_folders(study) if _pending(folder, uri)]
    if not folders:
        _log.info("nothing is missing in MLflow at %s", uri)
        return
    tracker = Tracker.reach()
    sent, refused = 0, []
    for folder in folders:
        with _alone(folder):
            with answering():
                tracker.open_study(folder.parent.name, folder.parent / "config.yaml")
            for path, attempts in _pending(folder, uri):
                start = attempts[0].start
                try:
                    _send(tracker, path, attempts)
                except Exception as reason:
                    # Of a tracker that is down nothing is to be expected; one that answers may take the others.
                    tracker.check()
                    refused.append(f"{start['study']} {start['stage']} ({shown(reason)})")
                    continue
                sent += 1
                _log.info("%s: %s is in MLflow", start["study"], start["stage"])
    _log.info("%d runs were missing in MLflow at %s and were sent", sent, uri)
    if refused:
        raise InputError(f"{len(refused)} runs could not be sent: {'; '.join(refused)}")


def _record_folders(study: str | None) -> list[Path]:
    known = sorted(folder for folder in Path("results").glob("*/tracking") if folder.is_dir())
    if study is None:
        return known
    found = [folder for folder in known if folder.parent.name == study]
    if not found:
        names = ", ".join(folder.parent.name for folder in known) or "none"
        raise InputError(f"study {study!r} has no records in results/{study}/tracking; studies that have: {names}")
    return found


def _pending(folder: Path, uri: str) -> list[tuple[Path, list[Attempt]]]:
    """The runs in a study's records of which a line has not arrived at an address."""
    return [
        (path, attempts)
        for path in sorted(folder.rglob("*.jsonl"))
        for attempts in runs_of(read_record(path)).values()
        if any(attempt.unsent(uri) for attempt in attempts)
    ]


def _send(tracker: Tracker, path: Path, attempts: Sequence[Attempt]) -> None:
    """Brings a run to the state of the record. Of an attempt that may still be at work that is what it has recorded so far."""
    record = Record(path)
    run = tracker.open_run(attempts)
    run_id = run.info.run_id

    def note(attempt: Attempt, through: int) -> None:
        record.append(record.sent(attempt.id, through, run_id, tracker.shown_uri))

    for attempt in attempts:
        lines = attempt.unsent(run_id)
        for begin in range(0, len(lines), _LINES_PER_PORTION):
            portion = lines[begin : begin + _LINES_PER_PORTION]
            tracker.send(run_id, portion)
            # The last line stands for tags and status too.
            note(attempt, place(portion[-1])[1] - (portion[-1] is attempt.lines[-1]))
    tags = tags_of(attempts)
    tracker.set_tags(run_id, tags)
    if "ddis.error" not in tags:
        tracker.forget_error(run)
    status, time = outcome(attempts)
    if not status and has_ended(attempts[-1].start["tags"]):
        status = "KILLED"
    if status:
        tracker.finish(run_id, status, time, len(attempts))
    for attempt in attempts:
        if attempt.unsent(run_id):
            note(attempt, place(attempt.lines[-1])[1])


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One sync of a study at a time."""
    path = folder / ".sync.lock"
    try:
        file = path.open("ab")
    except OSError as error:
        raise write_error(path, error) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log.info("another sync of %s is at work; waiting for it", folder.parent.name)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
