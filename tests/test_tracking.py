"""Tracking against a real SQLite database, and against trackers that are down, refuse, or give no answer."""

import logging
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tracked import run_script, start_script, work_in

from ddis import tracking
from ddis.provenance import file_digest
from ddis.tracking import Terminated, ensure_study, read_record, record_path, stage_run, tracker
from ddis.tracking import run as at_work


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("repository")


@pytest.fixture(autouse=True)
def _in_folder(folder, monkeypatch):
    """One database for the whole module, as its tables take seconds; every test has a study of its own."""
    work_in(folder, monkeypatch)


@pytest.fixture
def client():
    return make_client()


def make_client():
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=f"sqlite:///{Path('mlflow.db').absolute()}")


def stage_runs(client, study):
    experiment = client.get_experiment_by_name(study)
    return client.search_runs([experiment.experiment_id], "tags.`ddis.kind` = 'stage'", order_by=["attributes.start_time ASC"])


def study_run(client, study):
    experiment = client.get_experiment_by_name(study)
    (run,) = client.search_runs([experiment.experiment_id], "tags.`ddis.kind` = 'study'")
    return run


def config_file(study):
    path = Path("results", study, "config.yaml")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"study: {study}\n")
    return path


def kinds(study, stage):
    return [line["kind"] for line in read_record(record_path(study, stage))]


def check_record(study, stage, steps, status):
    lines = read_record(record_path(study, stage))
    assert len({line["id"] for line in lines}) == len(lines)
    metrics = [(line["step"], line["values"]["loss"]) for line in lines if line["kind"] == "metrics" and "loss" in line["values"]]
    assert metrics == [(step, 1 / (step + 1)) for step in range(steps)]
    assert lines[0]["kind"] == "start"
    assert [line["status"] for line in lines if line["kind"] == "end"] == [status]
    return lines


def test_stages_are_nested_under_one_parent(client):
    for _ in range(2):
        ensure_study("nested", config_file("nested"))
    for stage in ("generate/poisson", "train/poisson/prior"):
        with stage_run("nested", stage, {"seed": 1}):
            pass
    parent = study_run(client, "nested")
    assert parent.info.status == "FINISHED"
    assert [a.path for a in client.list_artifacts(parent.info.run_id)] == ["config.yaml"]
    runs = stage_runs(client, "nested")
    assert [run.info.run_name for run in runs] == ["generate/poisson", "train/poisson/prior"]
    assert {run.data.tags["mlflow.parentRunId"] for run in runs} == {parent.info.run_id}


def test_missing_parent_is_created_again(client):
    ensure_study("deleted", config_file("deleted"))
    client.delete_run(study_run(client, "deleted").info.run_id)
    with stage_run("deleted", "card", {}):
        pass
    (run,) = stage_runs(client, "deleted")
    assert run.data.tags["mlflow.parentRunId"] == study_run(client, "deleted").info.run_id
    client.delete_experiment(run.info.experiment_id)
    with stage_run("deleted", "tables", {}):
        pass
    assert client.get_experiment_by_name("deleted").lifecycle_stage == "active"


def test_metrics_parameters_tags_and_artifacts_arrive(client, tmp_path, monkeypatch):
    table = tmp_path / "errors.csv"
    table.write_text("run,l2_mean\nexact,1.5\n")
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(bytes(2000))
    monkeypatch.setattr(tracker, "ARTIFACT_LIMIT_BYTES", 1000)
    parameters = {"model": {"channels": [16, 32], "note": "x" * 7000}, "rate (%)": 0.5, "limit": None}
    parameters |= {f"p{i}": i for i in range(150)}
    with stage_run("whole", "train/poisson/prior", parameters, {"data": {"sha256": "ab"}}) as run:
        for step in range(1000):
            run.metrics({"loss": 1 / (step + 1)}, step)
        run.metrics({"odd": float("nan")}, 7)
        run.artifact(table, "tables")
        run.artifact(weights)
        run.tag("best_step", 999)
    (got,) = stage_runs(client, "whole")
    history = client.get_metric_history(got.info.run_id, "loss")
    assert [(m.step, m.value) for m in history] == [(step, 1 / (step + 1)) for step in range(1000)]
    assert got.data.metrics["seconds"] > 0 and got.data.metrics["peak_memory_mb"] > 10
    assert got.data.params["model.channels"] == "[16, 32]" and got.data.params["rate ___"] == "0.5"
    assert got.data.params["limit"] == "None" and got.data.params["p149"] == "149"
    assert len(got.data.params["model.note"]) == 6000
    assert got.data.tags["data.sha256"] == "ab" and got.data.tags["best_step"] == "999"
    assert got.data.tags["artifact.weights.safetensors"] == f"{weights} sha256:{file_digest(weights)}"
    assert [a.path for a in client.list_artifacts(got.info.run_id, "tables")] == ["tables/errors.csv"]
    assert got.info.status == "FINISHED"
    lines = check_record("whole", "train/poisson/prior", 1000, "FINISHED")
    assert lines[0]["parameters"] == parameters and lines[0]["mlflow"]
    assert float(lines[-1]["through"]) == len(lines) - 1 and lines[-1]["run_id"] == got.info.run_id
    assert [line["sha256"] for line in lines if line["kind"] == "artifact"] == [file_digest(table), file_digest(weights)]
    assert [line["values"] for line in lines if line.get("step") == 7 and "odd" in line["values"]] == [{"odd": "nan"}]


@pytest.mark.parametrize(
    ("error", "status"),
    [(RuntimeError("diverged"), "FAILED"), (KeyboardInterrupt(), "KILLED"), (Terminated(), "KILLED"), (SystemExit(3), "FAILED")],
)
def test_how_a_stage_ends(client, error, status):
    study = f"ends-{type(error).__name__}"
    with pytest.raises(type(error)), stage_run(study, "tables", {}) as run:
        run.metrics({"loss": 1.0}, 0)
        raise error
    (got,) = stage_runs(client, study)
    assert got.info.status == status and got.info.end_time is not None
    assert got.data.metrics["loss"] == 1.0 and "ddis.error" in got.data.tags
    check_record(study, "tables", 1, status)


def test_sigterm_ends_a_stage_as_killed(client):
    previous = signal.getsignal(signal.SIGTERM)
    try:
        tracking.install_sigterm_handler()
        with pytest.raises(Terminated), stage_run("sigterm", "tables", {}):
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, previous)
    assert [run.info.status for run in stage_runs(client, "sigterm")] == ["KILLED"]


def test_interrupted_stage_continues_its_run(client):
    with pytest.raises(KeyboardInterrupt), stage_run("resume", "sample", {"steps": 2}, {"git_commit": "a"}) as run:
        run.metrics({"loss": 1.0}, 0)
        raise KeyboardInterrupt
    with stage_run("resume", "sample", {"steps": 2}, {"git_commit": "b"}) as run:
        run.metrics({"loss": 0.5}, 1)
    (got,) = stage_runs(client, "resume")
    assert (got.info.status, got.data.tags["ddis.attempt"], got.data.tags["git_commit"]) == ("FINISHED", "2", "b")
    assert "ddis.error" not in got.data.tags
    assert [m.value for m in client.get_metric_history(got.info.run_id, "loss")] == [1.0, 0.5]
    with stage_run("resume", "sample", {"steps": 2}):
        pass
    with stage_run("resume", "sample", {"steps": 3}):
        pass
    assert [run.data.tags["ddis.attempt"] for run in stage_runs(client, "resume")] == ["2", "1", "1"]


def test_stage_killed_outright_continues_its_run(client):
    run_script("killed", "run.metrics({'loss': 1.0}, 0); run._send(); os._exit(9)", returncode=9)
    (before,) = stage_runs(client, "killed")
    assert before.info.status == "RUNNING"
    with record_path("killed", "stage-0").open("a") as file:
        file.write('{"id": "half a li')
    with stage_run("killed", "stage-0", {"number": 0}) as run:
        run.metrics({"loss": 0.5}, 1)
    (after,) = stage_runs(client, "killed")
    assert after.info.run_id == before.info.run_id
    assert (after.info.status, after.data.tags["ddis.attempt"]) == ("FINISHED", "2")
    check_record("killed", "stage-0", 2, "FINISHED")
    assert kinds("killed", "stage-0").count("start") == 2


def test_lines_sent_twice_count_once(client):
    with stage_run("twice", "tables", {}) as run:
        run.metrics({"loss": 1.0}, 0)
        again = list(run._unsent)
        run._send()
        run._unsent += again
    (got,) = stage_runs(client, "twice")
    assert len(client.get_metric_history(got.info.run_id, "loss")) == 1


@pytest.mark.parametrize(
    "uri", ["sqlite:////proc/none/mlflow.db", "sqlite:///text.db", "http://user:secret@127.0.0.1:9", "file:./old"]
)
def test_broken_tracker_warns_once(uri, monkeypatch, caplog, capfd):
    Path("text.db").write_text("This is no database, whatever its name says. " * 20)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setattr(at_work, "SEND_SECONDS", 0.0)
    check_broken(f"broken-{uri[:4]}-{len(uri)}", caplog)
    assert "secret" not in caplog.text
    assert capfd.readouterr().err == ""


def test_tracker_without_answer_warns_once(monkeypatch, caplog):
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setattr(at_work, "PATIENCE_SECONDS", 1.0)
        check_broken("silent", caplog)
    assert "no answer within 1 s" in caplog.text


def test_tracker_that_fails_in_between_warns_once(client, monkeypatch, caplog):
    monkeypatch.setattr(at_work, "SEND_SECONDS", 0.0)
    with stage_run("lost", "tables", {}) as run:
        for step in range(20):
            run.metrics({"loss": 1 / (step + 1)}, step)
            if step == 9:
                monkeypatch.setattr(run._watcher.tracker.client, "log_batch", None)
    assert len(caplog.records) == 1
    lines = check_record("lost", "tables", 20, "FINISHED")
    # Steps 10 to 19 and the usage at the end were not sent.
    assert [line["kind"] for line in lines[-12:]] == ["metrics"] * 11 + ["end"]
    (got,) = stage_runs(client, "lost")
    sent = max(line["through"] for line in lines if line["kind"] == "sent")
    arrived = len(client.get_metric_history(got.info.run_id, "loss"))
    assert arrived == sum(line["kind"] == "metrics" and int(line["id"].split("-")[1]) <= sent for line in lines)


def check_broken(study, caplog):
    with caplog.at_level(logging.INFO), stage_run(study, "tables", {"a": 1}) as run:
        for step in range(50):
            run.metrics({"loss": 1 / (step + 1)}, step)
        run.artifact(config_file(study))
    assert len(caplog.records) == 1
    assert caplog.records[0].levelno == logging.WARNING
    assert str(record_path(study, "tables")) in caplog.text
    lines = check_record(study, "tables", 50, "FINISHED")
    assert {line["kind"] for line in lines} == {"start", "metrics", "artifact", "end"}


@pytest.mark.parametrize("by", ["environment", "argument"])
def test_switched_off(by, monkeypatch, caplog):
    study = f"off-{by}"
    if by == "environment":
        monkeypatch.setenv("DDIS_TRACKING", "off")
    ensure_study(study, config_file(study), enabled=by != "argument")
    with stage_run(study, "tables", {}, enabled=by != "argument") as run:
        run.metrics({"loss": 1.0}, 0)
    assert not caplog.records
    assert not check_record(study, "tables", 1, "FINISHED")[0]["mlflow"]
    assert make_client().get_experiment_by_name(study) is None


def test_missing_artifact_is_a_warning(monkeypatch, caplog):
    monkeypatch.setenv("DDIS_TRACKING", "off")
    with stage_run("missing", "tables", {}) as run:
        run.artifact("nowhere.csv")
    assert "nowhere.csv" in caplog.text


def test_record_that_cannot_be_written_warns_once(monkeypatch, caplog):
    monkeypatch.setenv("DDIS_TRACKING", "off")
    Path("results/full").mkdir(parents=True)
    Path("results/full/tracking").write_text("a file where the folder should be")
    with stage_run("full", "tables", {}) as run:
        run.metrics({"loss": 1.0}, 0)
    assert len(caplog.records) == 1 and "results/full/tracking" in caplog.text


@pytest.mark.parametrize("stage", ["../out", "/tmp/out", "a//b", "", "a b"])
def test_names_cannot_leave_the_study(stage):
    with pytest.raises(ValueError, match="stage"), stage_run("s", stage, {}):
        pass


def test_parallel_processes_lose_nothing(tmp_path, monkeypatch):
    """Four processes start together on a folder without a database: the tables are set up once, and every metric arrives."""
    monkeypatch.chdir(tmp_path)
    body = "[run.metrics({'loss': 1 / (step + 1)}, step) for step in range(1000)]"
    processes = [start_script("parallel", body, number) for number in range(4)]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert (process.returncode, errors) == (0, "")
    client = make_client()
    runs = stage_runs(client, "parallel")
    assert sorted(run.info.run_name for run in runs) == [f"stage-{number}" for number in range(4)]
    assert {run.data.tags["mlflow.parentRunId"] for run in runs} == {study_run(client, "parallel").info.run_id}
    for run in runs:
        assert run.info.status == "FINISHED"
        history = client.get_metric_history(run.info.run_id, "loss")
        assert [(m.step, m.value) for m in history] == [(step, 1 / (step + 1)) for step in range(1000)]


def test_import_is_light():
    script = "import sys, ddis.tracking; print([name for name in ('mlflow', 'torch', 'numpy') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"
