"""Calls to MLflow that may fail or hang without harm to who makes them."""

import logging
import math
import os
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from ddis.tracking.tracker import Tracker, import_mlflow, shown, tracking_uri, without_password

_log = logging.getLogger(__name__)

PATIENCE_SHARE = 0.1


class Watcher:
    """Calls to MLflow in a thread of their own; after the first failure one warning, and no more calls.

    All calls together may keep the caller waiting for `patience` seconds and a tenth of its time, the import of MLflow aside.
    """

    tracker: Tracker

    def __init__(self, subject: str, fallback: str, enabled: bool, patience: float) -> None:
        self.uri = without_password(tracking_uri())
        self.on = enabled and os.environ.get("DDIS_TRACKING", "").lower() != "off"
        self._subject, self._fallback, self._patience = subject, fallback, patience
        self._begin, self._waited = time.monotonic(), 0.0
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = queue.SimpleQueue()
        if self.on:
            # Daemonic: a call that hangs must not keep the process from ending.
            threading.Thread(target=self._work, name="tracking", daemon=True).start()

    def connect(self) -> None:
        """To be called in the watcher's thread: sets `tracker`."""
        self.tracker = Tracker(tracking_uri())

    def call(self, function: Callable[[], Any], limit: float = math.inf) -> None:
        """Makes a call and waits for it, for `limit` seconds at most."""
        if not self.on:
            return
        # In the calling thread, where no time limit applies: a cold network disk may need a minute.
        import_mlflow()
        begin = time.monotonic()
        limit = min(limit, max(1.0, self._patience + PATIENCE_SHARE * (begin - self._begin) - self._waited))
        try:
            future: Future[Any] = Future()
            self._calls.put((function, future))
            future.result(limit)
        except TimeoutError:
            self._give_up(f"no answer within {limit:.3g} s")
        except Exception as reason:
            self._give_up(shown(reason))
        finally:
            self._waited += time.monotonic() - begin

    def close(self) -> None:
        """Ends the thread."""
        self._calls.put(None)

    def _give_up(self, reason: str) -> None:
        self.on = False
        message = "%s: MLflow at %s failed (%s); the stage goes on without it, %s"
        _log.warning(message, self._subject, self.uri, reason, self._fallback)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            function, future = call
            try:
                future.set_result(function())
            except BaseException as reason:
                future.set_exception(reason)
