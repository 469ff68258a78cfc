"""Shared by all tests: one thread, no tracking unless a test is about it; the longest files first."""

import os
import signal

import pytest

# Before torch and NumPy are imported: threads of two processes on the same cores wait for each other.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("DDIS_TRACKING", "off")

# A shell that runs tests in the background has them ignore interrupts, and so do the programs that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# `make test` hands whole files to its processes, in this order, so that none is left with a long one at the end.
LONGEST = ("test_study.py", "test_workflow.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))
