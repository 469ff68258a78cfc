"""What the tests of tracking share: what MLflow's SQLite database holds; stages in other processes; broken servers."""

import os
import socket
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ddis import tracking
from ddis.tracking import read_record, record_path, stage_run, tracker


def work_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the folder the working directory, with MLflow set as tracking sets it and without the user's variables."""
    monkeypatch.chdir(folder)
    for name in ("MLFLOW_TRACKING_URI", "DDIS_TRACKING"):
        monkeypatch.delenv(name, raising=False)
    for name, value in tracker.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


def stages(database: Path | str, study: str) -> dict[str, list[dict]]:
    """The runs of a study in MLflow, by name: status, times, parameters, tags, and every metric with its count."""
    connection = sqlite3.connect(database)
    connection.row_factory = sqlite3.Row

    def rows(query: str, *values: str) -> list[sqlite3.Row]:
        return connection.execute(query, values).fetchall()

    found: dict[str, list[dict]] = {}
    query = """select r.* from runs r join experiments e using (experiment_id)
        where e.name = ? and r.lifecycle_stage = 'active' order by r.start_time"""
    for run in rows(query, study):
        number = run["run_uuid"]
        metrics = rows("select key, step, iif(is_nan, 'nan', value), timestamp from metrics where run_uuid = ?", number)
        content = {
            "id": number,
            "status": run["status"],
            "times": (run["start_time"], run["end_time"]),
            "parameters": dict(tuple(row) for row in rows("select key, value from params where run_uuid = ?", number)),
            "tags": dict(tuple(row) for row in rows("select key, value from tags where run_uuid = ?", number)),
            "metrics": Counter(tuple(row) for row in metrics),
            "artifacts": Path(run["artifact_uri"]),
        }
        found.setdefault(run["name"], []).append(content)
    connection.close()
    return found


def recorded(study: str, stage: str) -> Counter:
    """Every metric of a record with its count, as in `stages`: the database has no infinity, and NaN is a flag."""
    special = {"nan": "nan", "inf": sys.float_info.max, "-inf": -sys.float_info.max}
    lines = [line for line in read_record(record_path(study, stage)) if line["kind"] == "metrics"]
    return Counter((n, line["step"], special.get(v, v), line["time"]) for line in lines for n, v in line["values"].items())


PROCESSES, METRICS, ENDS = 16, 1000, 3  # ends: seconds, CPU seconds, peak memory


def record_many(number: int, seconds: float = 0.0) -> None:
    """A stage with 1,000 metrics within `seconds`, and a file."""
    table = Path(f"results/many/table-{number}.csv")
    table.parent.mkdir(parents=True, exist_ok=True)
    table.write_text(f"{number}\n")
    with stage_run("many", f"train/{number}", {"number": number}) as run:
        for step in range(METRICS):
            run.metrics({"loss": 1 / (step + 1)}, step)
            time.sleep(seconds / METRICS)
        run.artifact(table)


def check_many(database: Path | str) -> None:
    """16 runs that finished, each with its 1,000 metrics and the three of its end, once, and nothing else in the database."""
    found = stages(database, "many")
    [parent] = found.pop("many")
    assert parent["status"] == "FINISHED"
    assert sorted(found) == sorted(f"train/{number}" for number in range(PROCESSES))
    for name, runs in found.items():
        assert len(runs) == 1 and runs[0]["status"] == "FINISHED"
        assert runs[0]["metrics"] == recorded("many", name)
        assert len(runs[0]["metrics"]) == METRICS + ENDS
        assert runs[0]["tags"]["mlflow.parentRunId"] == parent["id"]
    with sqlite3.connect(database) as connection:
        assert connection.execute("select count(*) from metrics").fetchone() == (PROCESSES * (METRICS + ENDS),)


def start_python(script: str) -> subprocess.Popen:
    """A process that runs a script, with pipes."""
    environment = os.environ | {"PYTHONPATH": str(Path(tracking.__file__).parents[2])}
    command = [sys.executable, "-c", textwrap.dedent(script)]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@contextmanager
def broken_server(fault: str) -> Iterator[str]:
    """Address of a server: `refuses-<status>`, `hangs` (no answer), `drips` (a byte every 0.2 s), `down` (nobody there)."""
    if fault == "down":
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        yield f"http://127.0.0.1:{port}"
        return
    stop = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            if fault.startswith("refuses"):
                self.send_error(int(fault.partition("-")[2]))
            elif fault == "drips":
                self.send_response(200)
                self.send_header("Content-Length", "1000000")
                self.end_headers()
            while not fault.startswith("refuses") and not stop.wait(0.2):
                if fault == "drips":
                    self.wfile.write(b" ")

        do_GET = do_POST = do_PUT = do_PATCH = answer

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        stop.set()
        server.shutdown()
        server.server_close()
        thread.join()


def wait_for(condition, seconds: float = 120.0) -> None:
    """Until `condition()` holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)
