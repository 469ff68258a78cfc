"""What the record of a stage says: runs, each of one or more attempts."""

import fcntl
from dataclasses import dataclass, field
from pathlib import Path

from ddis.tracking.record import Line, attempt_of, lines_after


@dataclass
class Run:
    """The attempts at a stage with the same parameters, up to the first that finished: one run in MLflow.

    `status`, `error` and `last` (ms since 1970) tell of the newest attempt. `id`, `sent` (a number of lines) and `shown` (status
    and end) tell of MLflow.
    """

    start: Line
    attempt: str = ""
    status: str = "RUNNING"
    error: str = ""
    last: int = 0
    unsent: list[Line] = field(default_factory=list)
    id: str = ""
    sent: int = 0
    shown: tuple[str, int | None] = ("RUNNING", None)

    @property
    def key(self) -> str:
        """Its first attempt; the tag `ddis.run`."""
        return attempt_of(self.start)

    @property
    def stage(self) -> str:
        return str(self.start["stage"])

    @property
    def state(self) -> tuple[str, int | None]:
        """What MLflow should show."""
        return self.status, None if self.status == "RUNNING" else self.last

    def add(self, line: Line) -> None:
        self.unsent.append(line)
        if line["kind"] == "start":
            self.attempt, self.status, self.error = attempt_of(line), "RUNNING", ""
        if attempt_of(line) == self.attempt:
            self.last = line["time"]
            if line["kind"] == "end":
                self.status, self.error = line["status"], line["error"]


class TrackingRecord:
    """A record as it is read, while its stage may still write it."""

    def __init__(self, path: Path) -> None:
        self.path, self.runs = path, list[Run]()
        self._offset, self._run_of = 0, dict[str, Run]()

    def read(self) -> None:
        """Takes in what is new. A run without an end becomes KILLED when its process is gone."""
        working = at_work(self.path)  # asked first: a stage that has ended by now has written its end
        lines, self._offset = lines_after(self.path, self._offset)
        for line in lines:
            if line["kind"] == "start":
                last = self.runs[-1] if self.runs else None
                if last is None or last.start["parameters"] != line["parameters"] or last.status == "FINISHED":
                    self.runs.append(Run(line))
                self._run_of[attempt_of(line)] = self.runs[-1]
            if run := self._run_of.get(attempt_of(line)):
                run.add(line)
        for run in self.runs:
            if run.status == "RUNNING" and not (working and run is self.runs[-1]):
                run.status, run.error = "KILLED", "killed outright"


def at_work(path: Path) -> bool:
    """Whether a process still writes a record; taken to be so where the disk has no locks."""
    with path.open("rb+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False
