"""Two processes at one stage: the later one goes on, the earlier one ends."""

import os
import subprocess
import sys
import time
from pathlib import Path

from ddis.stages.takeover import LOOK_SECONDS, only_process

AT_WORK = """
import logging, sys, time
from pathlib import Path
from ddis.stages.takeover import only_process
from ddis.signals import Terminated, install_sigterm_handler

logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
install_sigterm_handler()
try:
    with only_process(Path(sys.argv[1]), "train/poisson/prior"):
        print("at work", flush=True)
        time.sleep(60)
except Terminated:
    sys.exit(143)
"""


def test_the_later_process_takes_over(tmp_path: Path) -> None:
    mark = tmp_path / "work" / "prior"
    with subprocess.Popen([sys.executable, "-c", AT_WORK, str(mark)], text=True, stdout=-1, stderr=-1) as earlier:
        assert earlier.stdout is not None and earlier.stdout.readline() == "at work\n"
        assert mark.read_text().split()[1] == str(earlier.pid)
        begin = time.monotonic()
        with only_process(mark, "train/poisson/prior"):
            _, error = earlier.communicate(timeout=30)
            assert time.monotonic() - begin < LOOK_SECONDS + 5
            # It left the mark of its successor alone.
            assert mark.read_text().split()[1] == str(os.getpid())
    assert earlier.returncode == 143
    assert f"train/poisson/prior: process {os.getpid()} on " in error and "has taken this work over; this one ends" in error
    assert not mark.exists()


def test_a_mark_that_a_killed_process_left_stops_nobody(tmp_path: Path) -> None:
    mark = tmp_path / "prior"
    mark.write_text("node 1 0123\n")
    with only_process(mark, "train/poisson/prior"):
        assert mark.read_text().split()[1] == str(os.getpid())
    assert not mark.exists()
