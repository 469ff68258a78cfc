"""SIGTERM as an exception."""

import signal
from typing import Any, NoReturn


class Terminated(BaseException):
    """SIGTERM was received. No ordinary `except Exception` stops it; the stage's run ends as KILLED."""


def install_sigterm_handler() -> None:
    """From now on the first SIGTERM raises Terminated in the main thread; later ones are ignored while the process ends."""

    def terminate(number: int, frame: Any) -> NoReturn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Terminated("SIGTERM")

    signal.signal(signal.SIGTERM, terminate)
