"""A real MLflow server, which is killed while 16 stages record and an exporter follows them: nothing is lost or doubled.

What arrived is counted in the server's database.
"""

import multiprocessing
import os
import random
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tracked import PROCESSES, check_many, record_many, stages, wait_for, work_in

from ddis.tracking.beside import Exporter
from ddis.tracking.sync import sync

pytestmark = pytest.mark.faults

DATABASE = Path("server.db")


@pytest.fixture(autouse=True)
def _in_folder(tmp_path, monkeypatch):
    work_in(tmp_path, monkeypatch)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@contextmanager
def mlflow_server(port: int) -> Iterator[str]:
    """Address of a server over a database in the working directory; killed outright at the end."""
    options = ["--port", str(port), "--workers", "1", "--backend-store-uri", f"sqlite:///{DATABASE}"]
    environment = {
        name: value for name, value in os.environ.items() if name not in ("PYTEST_CURRENT_TEST", "MLFLOW_TRACKING_URI")
    }
    command = [str(Path(sys.executable).with_name("mlflow")), "server", *options, "--artifacts-destination", "files"]
    with Path("server.log").open("a") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: process.poll() is not None or answers(f"{address}/health"), 180)
        assert process.poll() is None, Path("server.log").read_text()
        yield address
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=10) as response:
            return response.status == 200
    except OSError:
        return False


def test_a_server_killed_in_between_and_exporters_killed_in_between(monkeypatch):
    """The exporter beside the workflow names what is missing; three exporters are killed with -9 at random times (seed 7)."""
    port, choice, context = free_port(), random.Random(7), multiprocessing.get_context("fork")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    with mlflow_server(port):
        exporter = Exporter("many")
        exporter.start()
        stages_at_work = [context.Process(target=record_many, args=(number, 20.0)) for number in range(PROCESSES)]
        for process in stages_at_work:
            process.start()
        wait_for(lambda: sum(len(run["metrics"]) > 0 for [run] in stages(DATABASE, "many").values()) > 3)
    for process in stages_at_work:
        process.join(300)
        assert process.exitcode == 0
    messages: list[str] = []
    exporter.finish(messages.append)
    assert "MLflow lacks some of study many" in messages[0]
    assert any(runs[0]["status"] != "FINISHED" for runs in stages(DATABASE, "many").values())
    with mlflow_server(port):
        for _ in range(3):
            process = context.Process(target=sync)
            process.start()
            process.join(choice.uniform(0.3, 3.0))
            process.kill()
            process.join()
        sync()
        sync()
    check_many(DATABASE)
    assert len(list(Path("files").rglob("table-*.csv"))) == PROCESSES
