"""Many stages report at once, to SQLite and to the server of `make mlflow-server`, which is then killed: nothing is lost.

What arrived is counted in the database itself.
"""

import multiprocessing
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tracked import recorded, stages, wait_for

from ddis.tracking import ensure_study, stage_run, tracker
from ddis.tracking import run as at_work
from ddis.tracking.sync import sync

pytestmark = pytest.mark.faults

ROOT = Path(__file__).parents[2]
PROCESSES, METRICS = 16, 1000
SERVER = ROOT / "workflow" / "mlflow-server.sh"


@pytest.fixture(autouse=True)
def _in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "DDIS_TRACKING", "PYTEST_CURRENT_TEST"):
        monkeypatch.delenv(name, raising=False)
    tracker.import_mlflow()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@contextmanager
def mlflow_server(port: int, **settings: str) -> Iterator[str]:
    """Address of a server in the working directory; killed outright at the end."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PORT": str(port)}
    environment |= {"HOST": "127.0.0.1"} | settings
    environment.pop("PYTEST_CURRENT_TEST", None)
    with Path("server.log").open("a") as log:
        process = subprocess.Popen([SERVER], env=environment, stdout=log, stderr=log, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: process.poll() is not None or answer(f"{address}/health") == 200, 180)
        assert process.poll() is None, Path("server.log").read_text()
        yield address
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answer(address: str, **headers: str) -> int:
    """Status of the answer to a request; 0 if there is none."""
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=10) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def report(number: int, seconds: float) -> None:
    """A stage with 1,000 metrics within `seconds`, a batch every 0.2 s, and a file."""
    at_work.SEND_SECONDS = 0.2
    table = Path(f"table-{number}.csv")
    table.write_text(f"{number}\n")
    with stage_run("many", f"stage-{number}", {"number": number}) as run:
        for step in range(METRICS):
            run.metrics({"loss": 1 / (step + 1)}, step)
            time.sleep(seconds / METRICS)
        run.artifact(table)


def start_all(seconds: float) -> list[multiprocessing.Process]:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=report, args=(number, seconds)) for number in range(PROCESSES)]
    for process in processes:
        process.start()
    return processes


def end_all(processes: list[multiprocessing.Process]) -> None:
    for process in processes:
        process.join(300)
        assert process.exitcode == 0


def check(database: Path) -> None:
    """16 runs that finished, each with its 1,000 metrics and the two of its end, once, and nothing else in the database."""
    found = stages(database, "many")
    assert sorted(found) == sorted(f"stage-{number}" for number in range(PROCESSES))
    for name, runs in found.items():
        assert len(runs) == 1 and runs[0]["status"] == "FINISHED"
        assert runs[0]["metrics"] == recorded("many", name)
        assert len(runs[0]["metrics"]) == METRICS + 2
    with sqlite3.connect(database) as connection:
        assert connection.execute("select count(*) from metrics").fetchone() == (PROCESSES * (METRICS + 2),)


def test_sixteen_processes_report_to_sqlite(caplog):
    ensure_study("many", Path("config.yaml"))
    end_all(start_all(seconds=2.0))
    check(Path("mlflow.db"))


def test_sixteen_processes_report_to_a_server_and_a_client_reads_them(monkeypatch):
    from mlflow import MlflowClient

    with mlflow_server(free_port()) as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        ensure_study("many", Path("config.yaml"))
        end_all(start_all(seconds=2.0))
        client = MlflowClient(address)
        experiment = client.get_experiment_by_name("many")
        runs = client.search_runs([experiment.experiment_id], "tags.`ddis.kind` = 'stage'")
        assert len(runs) == PROCESSES
        for run in runs:
            assert len(client.get_metric_history(run.info.run_id, "loss")) == METRICS
            [table] = client.list_artifacts(run.info.run_id)
            assert (Path("mlserver/artifacts") / experiment.experiment_id / run.info.run_id / "artifacts" / table.path).is_file()
    check(Path("mlserver/mlflow.db"))
    assert not Path("mlflow.db").exists()


def test_a_server_killed_in_between_and_syncs_killed_in_between(monkeypatch, capfd):
    """The server is killed while 16 processes report; started again, three syncs are killed with -9 at random times (seed 7)."""
    port, choice = free_port(), random.Random(7)
    with mlflow_server(port) as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        ensure_study("many", Path("config.yaml"))
        processes = start_all(seconds=6.0)
        database = Path("mlserver/mlflow.db")
        wait_for(lambda: sum(len(run["metrics"]) > 0 for [run] in stages(database, "many").values()) > 3)
    end_all(processes)
    missing = sum(runs[0]["status"] != "FINISHED" for runs in stages(database, "many").values())
    assert missing or len(stages(database, "many")) < PROCESSES
    context = multiprocessing.get_context("fork")
    with mlflow_server(port):
        for _ in range(3):
            process = context.Process(target=sync)
            process.start()
            process.join(choice.uniform(0.3, 3.0))
            process.kill()
            process.join()
        sync()
        sync()
    check(database)


def test_who_reaches_the_server():
    """By default this machine alone; with HOST=0.0.0.0 others too, if they call it by a name of this machine."""
    port, name = free_port(), socket.gethostname()
    query = "/api/2.0/mlflow/experiments/search?max_results=1"
    shown = subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=True)
    outside = [address for address in shown.stdout.split() if "." in address]
    with mlflow_server(port) as address:
        assert answer(address + query) == 200
        assert answer(address + query, Host=f"evil.example:{port}") == 403
        assert [answer(f"http://{number}:{port}{query}") for number in outside] == [0] * len(outside)
    assert "no password" not in Path("server.log").read_text()
    with mlflow_server(port, HOST="0.0.0.0") as address:
        assert [answer(f"http://{number}:{port}{query}") for number in outside] == [200] * len(outside)
        assert answer(address + query, Host=f"{name}:{port}") == 200
        assert answer(address + query, Host=f"evil.example:{port}") == 403
    assert "no password protects this server" in Path("server.log").read_text()


def test_a_variable_of_the_shell_does_not_open_the_server():
    """Some shells export HOST; only `make mlflow-server HOST=...` counts."""
    command = ["make", "--dry-run", "--old-file=.venv/.complete", "mlflow-server"]
    for more, host in (([], "HOST=127.0.0.1"), (["HOST=0.0.0.0"], "HOST=0.0.0.0")):
        shown = subprocess.run(
            [*command, *more], cwd=ROOT, env=os.environ | {"HOST": "::"}, capture_output=True, text=True, check=True
        )
        assert f" {host} " in shown.stdout
