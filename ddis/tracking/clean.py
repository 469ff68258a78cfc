"""`ddis runs clean`: ends the MLflow runs of processes that were killed outright and could not do it themselves."""

import logging
import time
from collections.abc import Collection
from typing import TYPE_CHECKING

from ddis.errors import InputError
from ddis.tracking.process import has_ended
from ddis.tracking.record import outcome, read_record, record_path, runs_of
from ddis.tracking.tracker import Tracker, answering

if TYPE_CHECKING:
    from mlflow.entities import Run

_log = logging.getLogger(__name__)


def clean(study: str | None = None, gone: Collection[str] = ()) -> None:
    """Ends runs, of one study or of all, that MLflow shows as RUNNING and whose process has ended; names those it leaves alone.

    They become what their record says, else KILLED, at the time of its last line. `gone` are hosts that will not come back.
    Raises InputError for a study that MLflow does not know, and a tracker that does not answer.
    """
    tracker = Tracker.reach()
    with answering():
        experiments = tracker.studies()
    if study is not None and study not in experiments:
        raise InputError(f"study {study!r} is not in MLflow at {tracker.shown_uri}; there: {', '.join(experiments) or 'none'}")
    ended = others = 0
    with answering():
        for run in tracker.running([number for name, number in experiments.items() if study in (None, name)]):
            tags = run.data.tags
            name, host = f"{tags['ddis.study']} {tags['ddis.stage']}", tags.get("ddis.host", "unknown")
            process = f"process {tags.get('ddis.pid')} of host {host}"
            match has_ended(tags, gone):
                case True:
                    _log.info("%s: ended as %s, %s is gone", name, _end(tracker, run), process)
                    ended += 1
                case False:
                    _log.info("%s: at work, %s", name, process)
                case None:
                    _log.info("%s: left alone, %s cannot be seen from here", name, process)
                    others += 1
    _log.info("%d runs ended, %d left alone", ended, others)
    if others:
        _log.info("run this command on their hosts, or, if a host will not come back, with --gone HOST")


def _end(tracker: Tracker, run: "Run") -> str:
    """Ends a run as its record says; returns its status."""
    tags = run.data.tags
    attempts = runs_of(read_record(record_path(tags["ddis.study"], tags["ddis.stage"]))).get(tags.get("ddis.run", ""))
    status, when = outcome(attempts) if attempts else ("", time.time_ns() // 10**6)
    if not status:
        status = "KILLED"
        tracker.set_tags(run.info.run_id, {"ddis.error": "killed outright"})
    tracker.finish(run.info.run_id, status, when, int(tags.get("ddis.attempt", 1)))
    return status
