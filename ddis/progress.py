"""Progress of long work as occasional log lines: what, how far, how long still. Needs no terminal."""

import logging
import math
import time
from collections import deque
from collections.abc import Callable

_log = logging.getLogger(__name__)

FIRST_SECONDS = 2.0
INTERVAL_SECONDS = 10.0
_RATE_WINDOW_SECONDS = 60.0


class Progress:
    """Logs lines such as `poisson prior: 400/2000 steps (20 %), loss 0.0123, 1 min 20 s left`.

    The first line comes after 2 s, then one at most every 10 s, and one at the end. The time left follows the rate of the
    last minute and counts only what this process has done: `start` is the number of steps done before, as after a resume.
    """

    def __init__(
        self,
        label: str,
        total: int,
        start: int = 0,
        unit: str = "steps",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.label, self.total, self.start, self.unit = label, total, start, unit
        self._clock = clock
        self._begin = clock()
        self._due = self._begin + FIRST_SECONDS
        self._history: deque[tuple[float, int]] = deque([(self._begin, start)])
        self._numbers: dict[str, float] = {}

    def update(self, step: int, **numbers: float) -> None:
        """`step` of `total` steps are done; `numbers`, such as a loss, are shown with them."""
        now = self._clock()
        self._numbers = numbers
        self._remember(now, step)
        if now >= self._due and step < self.total:
            self._due = now + INTERVAL_SECONDS
            self._write(step, self._time_left(now, step))

    def finish(self) -> None:
        """Log the last line, whenever the one before it was."""
        self._write(self.total, f"took {format_seconds(self._clock() - self._begin)}")

    def _remember(self, now: float, step: int) -> None:
        # One point a second is enough for the rate, however short a step is.
        if now - self._history[-1][0] >= 1.0:
            self._history.append((now, step))
        while len(self._history) > 2 and self._history[1][0] <= now - _RATE_WINDOW_SECONDS:
            self._history.popleft()

    def _time_left(self, now: float, step: int) -> str:
        then, step_then = self._history[0]
        if step <= step_then or now <= then:
            return "time left unknown"
        return f"{format_seconds((self.total - step) * (now - then) / (step - step_then))} left"

    def _write(self, step: int, ending: str) -> None:
        share = 100 * step // self.total if self.total else 100
        head = f"{self.label}: {step}/{self.total} {self.unit} ({share} %)"
        numbers = [f"{name.replace('_', ' ')} {value:.3g}" for name, value in self._numbers.items() if math.isfinite(value)]
        _log.info("%s", ", ".join([head, *numbers, ending]))


def format_seconds(seconds: float) -> str:
    """A duration as a person says it: `8 s`, `1 min 20 s`, `2 h 5 min`, `3 d 4 h`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"
