"""SIGTERM as an exception, and stopping between two steps: the loop looks after every step whether a signal came."""

import signal
import time
from types import FrameType, TracebackType
from typing import Any, NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# A terminal, srun and torchrun each pass a signal on: what comes so soon after the first is the same one.
COPIES_SECONDS = 2.0


class Terminated(BaseException):
    """SIGTERM was received. No ordinary `except Exception` stops it."""


def install_sigterm_handler() -> None:
    """From now on the first SIGTERM raises Terminated in the main thread; later ones are ignored while the process ends."""

    def terminate(number: int, frame: FrameType | None) -> NoReturn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Terminated("SIGTERM")

    signal.signal(signal.SIGTERM, terminate)


class Stopped(Terminated):
    """The work was stopped by a signal, between two steps and with its state saved; `number` is the signal's."""

    def __init__(self, step: int, number: int) -> None:
        super().__init__(f"interrupted at step {step}")
        self.number = number


class StopRequest:
    """While the block runs, the first SIGINT or SIGTERM is only noted; one after `COPIES_SECONDS` acts as before the block."""

    def __init__(self) -> None:
        self._number, self._time = 0, 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        # A signal that is ignored, as SIGINT is under nohup, stays so.
        self._before = {n: handler for n in SIGNALS if (handler := signal.getsignal(n)) is not signal.SIG_IGN}
        for number in self._before:
            signal.signal(number, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._restore()

    def received(self) -> int:
        """Number of the signal that came, 0 if none did."""
        return self._number

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self._number:
            self._number, self._time = number, now
        elif now - self._time > COPIES_SECONDS:
            self._restore()
            signal.raise_signal(number)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
