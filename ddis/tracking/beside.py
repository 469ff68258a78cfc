"""The exporter beside Snakemake: at work while jobs are, and given a bounded time to finish after them."""

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

WAIT_SECONDS = 65.0  # somewhat more than the exporter gives itself


class Exporter:
    """`ddis runs sync --follow STUDY` as a child process that reads from a pipe of this one: it ends when the pipe does, which
    the system closes even after kill -9. What it says stands in results/STUDY/logs/tracking.log."""

    def __init__(self, study: str) -> None:
        self._study, self._log = study, Path("results", study, "logs", "tracking.log")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Does nothing if tracking is off."""
        if os.environ.get("DDIS_TRACKING", "").lower() == "off":
            return
        self._log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "ddis", "runs", "sync", "--follow", self._study]
        with self._log.open("wb") as log:
            # A session of its own: Ctrl-C is for Snakemake.
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True)

    def finish(self, warn: Callable[[str], None]) -> None:
        """Waits until all is sent; warns of what went wrong."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            if self._process.wait(WAIT_SECONDS) == 0:
                return
        self._process.kill()
        said = self._log.read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2]
        warn(f"MLflow lacks some of study {self._study}, whose files are whole; `ddis runs sync` sends it. It said: {said}")
