"""One process for each stage: one that starts takes over the work of another that is still at it, which then ends.

Snakemake that is killed with -9 leaves its jobs running; started again, it submits them a second time beside these orphans. Both
write the same bytes, whole file by whole file, so nothing can be spoilt, but the orphan would cost time and make files again that
others have read already.
"""

import logging
import os
import platform
import signal
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ddis.files import write_text

_log = logging.getLogger(__name__)

LOOK_SECONDS = 3.0


@contextmanager
def only_process(path: Path, label: str) -> Iterator[None]:
    """Writes to `path` that this process is at work; if another one does so too, this one gets SIGTERM."""
    own = f"{platform.node()} {os.getpid()} {uuid.uuid4().hex}\n"
    write_text(path, own)
    ended = threading.Event()
    watch = threading.Thread(target=_watch, args=(path, own, label, ended), name="takeover", daemon=True)
    watch.start()
    try:
        yield
    finally:
        ended.set()
        watch.join()
        if _read(path) == own:
            path.unlink(missing_ok=True)


def _watch(path: Path, own: str, label: str, ended: threading.Event) -> None:
    while not ended.wait(LOOK_SECONDS):
        owner = _read(path)
        if owner not in ("", own):
            node, process = [*owner.split(), "?", "?"][:2]
            _log.warning("%s: process %s on %s has taken this work over; this one ends", label, process, node)
            os.kill(os.getpid(), signal.SIGTERM)
            return


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
