"""What the records hold is in MLflow exactly once: after every fault of a server, and however often the exporter is killed."""

import logging
import multiprocessing
import os
import random
import shutil
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import mlflow
import pytest
from tracked import PROCESSES, broken_server, check_many, record_many, recorded, stages, start_python, wait_for, work_in

from ddis import cli
from ddis.errors import InputError
from ddis.provenance import file_digest
from ddis.signals import Terminated
from ddis.tracking import read_record, record_path, stage_run, tracker
from ddis.tracking import sync as syncing
from ddis.tracking.beside import Exporter
from ddis.tracking.sync import sync

STEPS = 25


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory):
    """An MLflow database with its tables; to make them takes seconds."""
    folder = tmp_path_factory.mktemp("database")
    with pytest.MonkeyPatch.context() as patch:
        work_in(folder, patch)
        tracker.Tracker()
    return folder / "mlflow.db"


@pytest.fixture(autouse=True)
def _in_folder(tmp_path, monkeypatch, empty_database):
    work_in(tmp_path, monkeypatch)
    shutil.copy(empty_database, "mlflow.db")


def work(study: str, stage: str, first: int = 0, error: BaseException | None = None) -> None:
    """A stage with 25 metrics, two of which are no numbers, a table, and a word about it."""
    table = Path("results", study, "made", f"{stage.replace('/', '-')}.csv")
    table.parent.mkdir(parents=True, exist_ok=True)
    table.write_text(f"run,l2\n{stage},1.5\n")
    with stage_run(study, stage, {"seed": 1, "model": {"channels": [8, 8]}}, {"git_commit": "abc"}) as run:
        for step in range(first, first + STEPS):
            run.metrics({"loss": 1 / (step + 1)}, step)
        run.metrics({"odd": float("nan"), "huge": float("inf")}, 7)
        run.artifact(table)
        run.tag("best_step", first)
        if error:
            raise error


def check(study: str, *names: str, database: str = "mlflow.db") -> dict[str, dict]:
    """Each stage is one run, with every metric of its record once, its parameters and table; returns all runs."""
    found = stages(database, study)
    assert sorted(found) == sorted([study, *names])
    for name in names:
        [run] = found[name]
        assert run["metrics"] == recorded(study, name)
        assert set(run["metrics"].values()) == {1}
        assert run["parameters"] == {"seed": "1", "model.channels": "[8, 8]"}
        assert run["tags"]["git_commit"] == "abc" and run["tags"]["mlflow.parentRunId"] == found[study][0]["id"]
        assert (run["artifacts"] / f"{name.replace('/', '-')}.csv").read_text() == f"run,l2\n{name},1.5\n"
    assert len(found[study]) == 1
    return {name: runs[0] for name, runs in found.items()}


def test_a_network_with_a_dot_in_its_name_is_sent():
    """Such as those of 12.5 % of the pairs: MLflow refuses dots in the names of its models."""
    folder = Path("results/dots/models/poisson/operator-12.5")
    folder.mkdir(parents=True)
    (folder / "weights.safetensors").write_bytes(b"weights")
    Path("results/dots/config.yaml").write_text("study: dots\n")
    with stage_run("dots", "train/poisson/operator-12.5", {}) as run:
        run.network(folder, {"a": (-1, 1, 8, 8)}, {"u": (-1, 1, 8, 8)})
    sync("dots")
    with closing(sqlite3.connect("mlflow.db")) as database:
        assert database.execute("select name from logged_models").fetchall() == [("poisson-operator-12_5",)]


def test_what_was_recorded_is_sent_once(caplog):
    work("study", "train/a")
    with pytest.raises(Terminated):
        work("study", "train/b", error=Terminated("SIGTERM"))
    Path("results/study/config.yaml").write_text("study: study\n")
    sync()
    runs = check("study", "train/a", "train/b")
    for name, status in (("train/a", "FINISHED"), ("train/b", "KILLED")):
        lines = read_record(record_path("study", name))
        assert (runs[name]["status"], runs[name]["times"]) == (status, (lines[0]["time"], lines[-1]["time"]))
        assert runs[name]["tags"]["best_step"] == "0"
    assert runs["train/b"]["tags"]["ddis.error"] == "Terminated" and "ddis.error" not in runs["train/a"]["tags"]
    parent = runs["study"]
    assert (parent["status"], parent["times"]) == ("KILLED", (runs["train/a"]["times"][0], runs["train/b"]["times"][1]))
    assert (parent["artifacts"] / "config.yaml").read_text() == "study: study\n"
    assert "# Study `study`" in parent["tags"]["mlflow.note.content"]
    client = mlflow.MlflowClient(f"sqlite:///{Path('mlflow.db').absolute()}")
    assert client.get_experiment_by_name("study").tags["mlflow.experimentKind"] == "custom_model_development"
    before = stages("mlflow.db", "study")
    with caplog.at_level(logging.INFO):
        sync()
    assert stages("mlflow.db", "study") == before and "has all of it" in caplog.text


def test_what_mlflow_cannot_hold_is_cut(monkeypatch):
    weights = Path("results/study/weights.safetensors")
    weights.parent.mkdir(parents=True)
    weights.write_bytes(bytes(2000))
    monkeypatch.setattr(tracker, "FILE_LIMIT_BYTES", 1000)
    parameters = {"note": "x" * 7000, "rate (%)": 0.5, "limit": None} | {f"p{i}": i for i in range(150)}
    with stage_run("study", "train/a", parameters, {f"t{i}": "y" * 9000 for i in range(2)}) as run:
        run.metrics({f"m{i}": i for i in range(1500)})
        run.artifact(weights)
    sync()
    [run] = stages("mlflow.db", "study")["train/a"]
    assert len(run["metrics"]) == 1503 and len(run["parameters"]) == 153
    assert (run["parameters"]["rate ___"], run["parameters"]["limit"], len(run["parameters"]["note"])) == ("0.5", "None", 6000)
    assert len(run["tags"]["t1"]) == 8000
    assert run["tags"]["artifact.weights.safetensors"] == f"{weights} sha256:{file_digest(weights)}"


@pytest.mark.parametrize("fault", ["down", "refuses-500", "refuses-403", "hangs"])
def test_a_broken_server_is_one_clear_error_and_loses_nothing(fault, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    work("study", "train/a")
    with broken_server(fault) as uri, monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri.replace("//", "//user:secret@"))
        begin = time.monotonic()
        assert cli.main(["runs", "sync"]) == 2
        assert time.monotonic() - begin < 10
    error = capsys.readouterr().err
    assert f"error: MLflow at {uri} cannot be used" in error and "secret" not in error
    assert not stages("mlflow.db", "study")
    sync()
    assert check("study", "train/a")["train/a"]["status"] == "FINISHED"


@pytest.mark.parametrize("uri", ["sqlite:////proc/none/mlflow.db", "sqlite:///text.db", "file:./old"])
def test_a_broken_database_is_one_clear_error(uri, monkeypatch):
    Path("text.db").write_text("This is no database, whatever its name says. " * 20)
    work("study", "train/a")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(InputError, match="cannot be used"):
        sync()


def test_wrong_calls_are_one_clear_line(capsys):
    work("study", "train/a")
    assert cli.main(["runs", "sync", "other"]) == 2
    assert cli.main(["runs", "sync", "--follow"]) == 2
    errors = capsys.readouterr().err
    assert "error: study 'other' has no records" in errors and "error: --follow needs the name of a STUDY" in errors


class Killed(BaseException):
    """Stands for the end of the process: nothing catches it."""


def kill_at(monkeypatch, number: int, after: bool) -> None:
    """Makes MLflow's client end the process at its call of that number, before it or when it has taken effect."""

    class Deadly:
        calls = 0

        def __init__(self, *arguments):
            self.client = client(*arguments)

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


def test_an_exporter_killed_at_any_call_is_made_whole_by_the_next(monkeypatch, tmp_path):
    """Killed when the effect of the call is there and the tag `ddis.sent` does not tell of it; portions of 15 lines."""
    monkeypatch.setattr(syncing, "LINES_PER_PORTION", 15)
    work("study", "train/a")
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
            assert check("study", "train/a")["train/a"]["status"] == "FINISHED"
    assert number > 15


def test_sixteen_records_with_exporters_killed_at_random_times():
    """Each of 1,000 metrics; four exporters are killed with -9 (seed 7), one has its time; all of it takes seconds."""
    for number in range(PROCESSES):
        record_many(number)
    choice, context = random.Random(7), multiprocessing.get_context("fork")
    for _ in range(4):
        process = context.Process(target=sync)
        process.start()
        process.join(choice.uniform(0.1, 1.5))
        process.kill()
        process.join()
    begin = time.monotonic()
    sync()
    assert time.monotonic() - begin < 20
    check_many("mlflow.db")


def test_of_two_exporters_one_says_so_and_ends(caplog):
    work("study", "train/a")
    lock = syncing._lock(Path("results/study"))
    with caplog.at_level(logging.INFO), lock:
        sync()
    assert caplog.messages == ["study: another process sends its records already"] and not stages("mlflow.db", "study")
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=sync) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    check("study", "train/a")


def test_a_lost_database_is_made_again():
    work("study", "train/a")
    sync()
    Path("mlflow.db").unlink()
    shutil.rmtree("mlruns")
    exporter = start_python("from ddis.tracking.sync import sync; sync()")  # MLflow keeps connections
    assert exporter.wait() == 0, exporter.communicate()
    check("study", "train/a")


def test_a_copied_folder_keeps_its_files_to_itself(monkeypatch, tmp_path, empty_database):
    """With its database and without: nothing is doubled, and what is new goes to where the folder is now."""
    work("study", "train/a")
    sync()
    places = [tmp_path / "whole", tmp_path / "results-only"]
    shutil.copytree("results", places[0] / "results")
    shutil.copytree("results", places[1] / "results")
    shutil.copytree("mlruns", places[0] / "mlruns")
    for place, database in zip(places, (Path("mlflow.db"), empty_database), strict=True):
        shutil.copy(database, place)
    shutil.rmtree("results")
    before = sorted(Path("mlruns").rglob("*"))
    for place in places:
        monkeypatch.chdir(place)
        work("study", "train/b")
        sync()
        runs = check("study", "train/a", "train/b")
        assert all(run["artifacts"].is_relative_to(place) for run in runs.values())
    assert sorted((tmp_path / "mlruns").rglob("*")) == [tmp_path / path for path in before]


def test_another_tracker_gets_everything_too(monkeypatch, empty_database):
    work("study", "train/a")
    sync()
    shutil.copy(empty_database, "other.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///other.db")
    sync("study")
    check("study", "train/a")
    check("study", "train/a", database="other.db")


def test_attempts_are_one_run_until_one_finishes():
    with pytest.raises(RuntimeError):
        work("study", "train/a", 0, RuntimeError("first"))
    sync()
    run = check("study", "train/a")["train/a"]
    assert (run["status"], run["tags"]["ddis.error"]) == ("FAILED", "RuntimeError: first")
    work("study", "train/a", 25)
    sync()
    run = check("study", "train/a")["train/a"]
    lines = read_record(record_path("study", "train/a"))
    assert (run["status"], run["times"]) == ("FINISHED", (lines[0]["time"], lines[-1]["time"])) and "ddis.error" not in run[
        "tags"
    ]
    work("study", "train/a", 50)
    sync()
    assert [run["status"] for run in stages("mlflow.db", "study")["train/a"]] == ["FINISHED", "FINISHED"]


def test_a_stage_at_work_and_one_killed_outright():
    script = """
        import os
        from ddis.tracking import stage_run
        with stage_run("study", "train/killed", {}) as run:
            run.metrics({"loss": 1.0}, 0)
            os._exit(9)
    """
    assert start_python(script).wait() == 9
    with stage_run("study", "train/here", {}) as run:
        run.metrics({"loss": 1.0}, 0)
        sync()
        found = stages("mlflow.db", "study")
        [here], [killed], [parent] = found["train/here"], found["train/killed"], found["study"]
        assert (here["status"], here["times"][1], parent["status"]) == ("RUNNING", None, "RUNNING")
        last = read_record(record_path("study", "train/killed"))[-1]
        assert (killed["status"], killed["times"][1]) == ("KILLED", last["time"])
        assert killed["tags"]["ddis.error"] == "killed outright"
        run.metrics({"loss": 0.5}, 1)
    with stage_run("study", "train/killed", {}):
        pass
    sync()
    found = stages("mlflow.db", "study")
    assert {name: run["status"] for name, [run] in found.items()} == dict.fromkeys(found, "FINISHED")
    assert found["train/here"][0]["metrics"] == recorded("study", "train/here")
    assert "ddis.error" not in found["train/killed"][0]["tags"]


def test_a_file_that_has_changed_is_named_and_not_sent(caplog):
    work("study", "train/a")
    table = Path("results/study/made/train-a.csv")
    digest = file_digest(table)
    table.write_text("changed")
    sync()
    [run] = stages("mlflow.db", "study")["train/a"]
    assert run["tags"]["artifact.train-a.csv"] == f"{table} sha256:{digest}"
    assert "no longer the file" in caplog.text and not (run["artifacts"] / "train-a.csv").exists()


def test_what_a_lost_answer_created_twice_is_one_run(monkeypatch):
    create = mlflow.MlflowClient.create_run

    def twice(*arguments, **settings):
        create(*arguments, **settings)
        raise TimeoutError

    work("study", "train/a")
    with monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, "create_run", twice)
        with pytest.raises(InputError):
            sync()
    client = mlflow.MlflowClient(f"sqlite:///{Path('mlflow.db').absolute()}")
    experiment = client.get_experiment_by_name("study").experiment_id
    client.create_run(experiment, 0, {"ddis.kind": "study", "ddis.run": "study"}, "study")
    sync()
    check("study", "train/a")


def test_what_was_deleted_in_mlflow_stays_deleted():
    work("study", "train/a")
    work("study", "train/b")
    sync()
    client = mlflow.MlflowClient(f"sqlite:///{Path('mlflow.db').absolute()}")
    client.delete_run(stages("mlflow.db", "study")["train/a"][0]["id"])
    sync()
    check("study", "train/b")


def test_one_run_that_is_refused_does_not_hold_up_the_others(monkeypatch):
    for name in ("train/a", "train/b", "train/c"):
        work("study", name)
    attach = tracker.Tracker.attach

    def refuse(self, run_id, path, line, folder=None):
        if path.name == "train-b.csv":
            raise mlflow.MlflowException("no room for b")
        attach(self, run_id, path, line, folder)

    with monkeypatch.context() as patch:
        patch.setattr(tracker.Tracker, "attach", refuse)
        with pytest.raises(InputError, match=r"study: 1 runs could not be sent: train/b .*no room for b"):
            sync()
        runs = stages("mlflow.db", "study")
        assert {name for name, [run] in runs.items() if run["status"] == "RUNNING"} == {"train/b"}
    sync()
    check("study", "train/a", "train/b", "train/c")


def shown_metrics() -> int:
    return sum(len(run["metrics"]) for runs in stages("mlflow.db", "study").values() for run in runs)


def test_curves_appear_within_5_s_and_the_exporter_ends_with_its_parent():
    """Its parent is killed with -9 while a stage is at work; what was recorded until then arrives."""
    parent = start_python(
        "from ddis.tracking.beside import Exporter; e = Exporter('study'); e.start(); print(e._process.pid, flush=True); input()"
    )
    exporter = int(parent.stdout.readline())
    with stage_run("study", "train/a", {}) as run:
        run.metrics({"loss": 1.0}, 0)
        wait_for(lambda: shown_metrics() == 1, 30)  # MLflow is imported, and connected
        begin = time.monotonic()
        run.metrics({"loss": 0.5}, 1)
        wait_for(lambda: shown_metrics() == 2, 30)
        assert time.monotonic() - begin < 5
        run.metrics({"loss": 0.25}, 2)
        os.kill(parent.pid, signal.SIGKILL)
        parent.communicate()
        wait_for(lambda: not Path(f"/proc/{exporter}").exists(), 30)
    assert shown_metrics() == 3
    sync()
    assert stages("mlflow.db", "study")["train/a"][0]["status"] == "FINISHED"


@pytest.mark.parametrize("fault", ["refuses-500", "drips"])
def test_the_workflow_ends_in_bounded_time_whatever_the_tracker_does(fault, monkeypatch):
    """Two seconds for the last step instead of 60: the message says what is missing, and what sends it."""
    site = Path("site")
    site.mkdir()
    (site / "sitecustomize.py").write_text("import ddis.tracking.sync as s; s.LAST_SECONDS = 2.0\n")
    with broken_server(fault) as uri, monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        patch.setenv("PYTHONPATH", f"{site.absolute()}:{Path(tracker.__file__).parents[2]}")
        exporter = Exporter("study")
        exporter.start()
        work("study", "train/a")
        time.sleep(5)
        begin = time.monotonic()
        messages: list[str] = []
        exporter.finish(messages.append)
        assert time.monotonic() - begin < 10
    [message] = messages
    assert "MLflow lacks some of study study" in message and "`ddis runs sync` sends it" in message and uri in message
    sync()
    check("study", "train/a")
