"""Records that no tracker has seen reach it exactly once: after every fault of a server, and however often a sync is killed."""

import logging
import multiprocessing
import shutil
import time
from pathlib import Path

import mlflow
import pytest
from tracked import broken_server, recorded, run_script, stages, work_in

from ddis import cli
from ddis.errors import InputError
from ddis.provenance import file_digest
from ddis.tracking import Terminated, ensure_study, read_record, record_path, stage_run, tracker
from ddis.tracking import run as at_work
from ddis.tracking import sync as syncing
from ddis.tracking.sync import sync

STEPS = 25


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory):
    """An MLflow database with its tables; to make them takes seconds."""
    folder = tmp_path_factory.mktemp("database")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        tracker.import_mlflow()
        tracker.Tracker("sqlite:///mlflow.db")
    return folder / "mlflow.db"


@pytest.fixture(autouse=True)
def _in_folder(tmp_path, monkeypatch, empty_database):
    work_in(tmp_path, monkeypatch)
    shutil.copy(empty_database, "mlflow.db")


@pytest.fixture
def off(monkeypatch):
    """Stages keep their records to themselves."""
    monkeypatch.setenv("DDIS_TRACKING", "off")


@pytest.fixture
def on(monkeypatch):
    monkeypatch.delenv("DDIS_TRACKING", raising=False)


def work(study: str, stage: str, first: int = 0, error: BaseException | None = None) -> None:
    """A stage with 25 metrics, two of which are no numbers, a table, and a word about it."""
    table = Path("results", study, "tables", f"{stage}.csv")
    table.parent.mkdir(parents=True, exist_ok=True)
    table.write_text(f"run,l2\n{stage},1.5\n")
    with stage_run(study, stage, {"seed": 1, "model": {"channels": [8, 8]}}, {"git_commit": "abc"}) as run:
        for step in range(first, first + STEPS):
            run.metrics({"loss": 1 / (step + 1)}, step)
        run.metrics({"odd": float("nan"), "huge": float("inf")}, 7)
        run.artifact(table, "tables")
        run.tag("best_step", first)
        if error:
            raise error


def check(study: str, *names: str, database: str = "mlflow.db") -> dict[str, dict]:
    """Each of the stages is one run, with every metric of its record once, its parameters and its table; returns them."""
    found = stages(database, study)
    assert sorted(found) == sorted(names)
    for name, runs in found.items():
        assert len(runs) == 1
        assert runs[0]["metrics"] == recorded(study, name)
        assert set(runs[0]["metrics"].values()) == {1}
        assert runs[0]["parameters"] == {"seed": "1", "model.channels": "[8, 8]"}
        assert runs[0]["tags"]["git_commit"] == "abc"
    return {name: runs[0] for name, runs in found.items()}


def table_of(run: dict) -> str:
    return (Path(run["artifacts"].removeprefix("file://")) / "tables" / f"{run['tags']['ddis.stage']}.csv").read_text()


def test_what_was_never_sent_is_sent_once(off, caplog):
    config = Path("results/study/config.yaml")
    config.parent.mkdir(parents=True)
    config.write_text("study: study\n")
    ensure_study("study", config)
    work("study", "tables")
    with pytest.raises(Terminated):
        work("study", "figures", error=Terminated("SIGTERM"))
    with caplog.at_level(logging.INFO):
        sync()
    assert "2 runs were missing" in caplog.text
    runs = check("study", "tables", "figures")
    for name, status in (("tables", "FINISHED"), ("figures", "KILLED")):
        lines = read_record(record_path("study", name))
        end = next(line for line in lines if line["kind"] == "end")
        assert (runs[name]["status"], runs[name]["times"]) == (status, (lines[0]["time"], end["time"]))
        assert runs[name]["tags"]["best_step"] == "0" and table_of(runs[name]) == f"run,l2\n{name},1.5\n"
    assert runs["figures"]["tags"]["ddis.error"] == "Terminated" and "ddis.error" not in runs["tables"]["tags"]
    client = mlflow.MlflowClient(f"sqlite:///{Path('mlflow.db').absolute()}")
    parent = client.get_run(runs["tables"]["tags"]["mlflow.parentRunId"])
    assert parent.data.tags["ddis.kind"] == "study"
    assert [artifact.path for artifact in client.list_artifacts(parent.info.run_id)] == ["config.yaml"]
    before, sizes = stages("mlflow.db", "study"), [path.stat().st_size for path in Path("results").rglob("*.jsonl")]
    with caplog.at_level(logging.INFO):
        sync()
    assert "nothing is missing" in caplog.text
    assert stages("mlflow.db", "study") == before
    assert [path.stat().st_size for path in Path("results").rglob("*.jsonl")] == sizes


@pytest.mark.parametrize("fault", ["down", "refuses-500", "refuses-403", "hangs", "drips"])
def test_a_broken_server_costs_one_warning_and_little_time(fault, on, monkeypatch, caplog):
    """With patience and time limits scaled down, 3 s instead of 60 and 1 s instead of 10; then a sync to a server that works."""
    monkeypatch.setattr(at_work, "PATIENCE_SECONDS", 3.0)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    begin = time.monotonic()
    with broken_server(fault) as uri, monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        work("study", "tables")
        assert time.monotonic() - begin < 10
        assert len(caplog.records) == 1 and "ddis runs sync" in caplog.text
        if fault != "drips":
            with pytest.raises(InputError, match="cannot be used"):
                sync()
    assert not stages("mlflow.db", "study")
    sync()
    sync()
    assert check("study", "tables")["tables"]["status"] == "FINISHED"


class Killed(BaseException):
    """Stands for the end of the process: nothing catches it."""


def kill_at(monkeypatch, number: int, after: bool) -> None:
    """Makes MLflow's client end the process at its call of that number, before it or when it has taken effect."""

    class Deadly:
        calls = 0

        def __init__(self, **settings):
            self.client = client(**settings)

        def __getattr__(self, name):
            def call(*arguments, **settings):
                Deadly.calls += 1
                if Deadly.calls == number and not after:
                    raise Killed
                result = getattr(self.client, name)(*arguments, **settings)
                if Deadly.calls == number and after:
                    raise Killed
                return result

            return call

    client = mlflow.MlflowClient
    monkeypatch.setattr(mlflow, "MlflowClient", Deadly)


def test_a_sync_killed_at_any_call_is_made_whole_by_the_next(off, monkeypatch, tmp_path):
    """Killed when the effect of the call is there and no note of it in the record; portions of 10 lines."""
    monkeypatch.setattr(syncing, "_LINES_PER_PORTION", 10)
    work("study", "tables")
    ended, number = False, 0
    while not ended:
        number += 1
        copy = tmp_path / f"copy-{number}"
        shutil.copytree("results", copy / "results")
        shutil.copy("mlflow.db", copy)
        with monkeypatch.context() as patch:
            patch.chdir(copy)
            with patch.context() as deadly:
                kill_at(deadly, number, after=True)
                try:
                    sync()
                    ended = True
                except Killed:
                    pass
            sync()
            assert check("study", "tables")["tables"]["status"] == "FINISHED"
    assert number > 15


def test_a_sync_killed_again_and_again_comes_to_its_end(off, monkeypatch):
    """Each time one call later, and before it."""
    monkeypatch.setattr(syncing, "_LINES_PER_PORTION", 10)
    work("study", "tables")
    for number in range(1, 100):
        with monkeypatch.context() as patch:
            kill_at(patch, number, after=False)
            try:
                sync()
                break
            except Killed:
                continue
    assert 5 < number < 99
    assert check("study", "tables")["tables"]["status"] == "FINISHED"


def test_two_syncs_at_once(off):
    """Started together by processes; one waits for the other."""
    for name in ("tables", "figures", "report"):
        work("study", name)
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(2)

    def start() -> None:
        barrier.wait()
        sync()

    processes = [context.Process(target=start) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    check("study", "tables", "figures", "report")


def test_attempts_sent_and_not_sent_are_one_run(off, monkeypatch):
    """The first and third attempt without a tracker, the second with one: in the end one run, as the last left it."""
    with pytest.raises(RuntimeError):
        work("study", "tables", 0, RuntimeError("first"))
    with monkeypatch.context() as patch:
        patch.setenv("DDIS_TRACKING", "on")
        with pytest.raises(KeyboardInterrupt):
            work("study", "tables", 25, KeyboardInterrupt())
    [run] = stages("mlflow.db", "study")["tables"]
    assert (run["status"], run["tags"]["ddis.attempt"], run["tags"]["ddis.error"]) == ("KILLED", "2", "KeyboardInterrupt")
    work("study", "tables", 50)
    sync()
    run = check("study", "tables")["tables"]
    assert (run["status"], run["tags"]["ddis.attempt"]) == ("FINISHED", "3")
    assert "ddis.error" not in run["tags"]
    lines = read_record(record_path("study", "tables"))
    assert run["times"] == (lines[0]["time"], [line for line in lines if line["kind"] == "end"][-1]["time"])
    # What has finished is not gone on with, although its tracker never heard of it.
    monkeypatch.setenv("DDIS_TRACKING", "on")
    work("study", "tables", 75)
    assert [run["tags"]["ddis.attempt"] for run in stages("mlflow.db", "study")["tables"]] == ["3", "1"]


def test_a_stage_at_work_and_one_killed_outright(off):
    run_script("study", "run.metrics({'loss': 1.0}, 0); os._exit(9)", returncode=9)
    with stage_run("study", "here", {}) as run:
        run.metrics({"loss": 1.0}, 0)
        sync()
        found = stages("mlflow.db", "study")
        [here], [killed] = found["here"], found["stage-0"]
        assert (here["status"], here["times"][1]) == ("RUNNING", None)
        last = read_record(record_path("study", "stage-0"))[1]
        assert last["kind"] == "metrics" and (killed["status"], killed["times"][1]) == ("KILLED", last["time"])
        run.metrics({"loss": 0.5}, 1)
    sync()
    [here] = stages("mlflow.db", "study")["here"]
    assert here["status"] == "FINISHED" and here["metrics"] == recorded("study", "here")


def test_a_file_that_has_changed_is_named_and_not_sent(off, caplog):
    work("study", "tables")
    table = Path("results/study/tables/tables.csv")
    digest = file_digest(table)
    table.write_text("changed")
    sync()
    run = check("study", "tables")["tables"]
    assert run["tags"]["artifact.tables.csv"] == f"{table} sha256:{digest}"
    assert "no longer the file" in caplog.text
    assert not (Path(run["artifacts"].removeprefix("file://")) / "tables").exists()


def test_another_tracker_gets_everything_too(on, monkeypatch, empty_database):
    work("study", "tables")
    shutil.copy(empty_database, "other.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///other.db")
    for _ in range(2):
        sync("study")
    check("study", "tables")
    check("study", "tables", database="other.db")


def test_what_a_lost_answer_created_twice_is_one_run(off, monkeypatch):
    """MLflow repeats a request without an answer, also if the server had heard the first."""
    create = mlflow.MlflowClient.create_run

    def twice(*arguments, **settings):
        create(*arguments, **settings)
        return create(*arguments, **settings)

    monkeypatch.setattr(mlflow.MlflowClient, "create_run", twice)
    work("study", "tables")
    sync()
    check("study", "tables")


def test_one_run_that_is_refused_does_not_hold_up_the_others(off, monkeypatch):
    for name in ("figures", "report", "tables"):
        work("study", name)
    send = tracker.Tracker.send

    def refuse(self, run_id, lines):
        if any(line.get("path", "").endswith("report.csv") for line in lines):
            raise mlflow.MlflowException("no room for reports")
        send(self, run_id, lines)

    with monkeypatch.context() as patch:
        patch.setattr(tracker.Tracker, "send", refuse)
        with pytest.raises(InputError, match=r"1 runs could not be sent: study report .*no room for reports"):
            sync()
        runs = stages("mlflow.db", "study")
        assert {name for name, [run] in runs.items() if run["status"] == "FINISHED"} == {"figures", "tables"}
    sync()
    check("study", "figures", "report", "tables")


def test_wrong_calls_are_one_clear_line(off, monkeypatch, capsys):
    work("study", "tables")
    assert cli.main(["runs", "sync", "other"]) == 2
    assert "error: study 'other' has no records" in capsys.readouterr().err
    with broken_server("down") as uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        for action in ("sync", "clean"):
            assert cli.main(["runs", action]) == 2
            assert f"error: MLflow at {uri} cannot be used" in capsys.readouterr().err
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert cli.main(["runs", "sync", "study"]) == 0
    check("study", "tables")
