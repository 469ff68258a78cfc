"""Shared by all tests: one thread, no tracking unless a test is about it."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("DDIS_TRACKING", "off")
