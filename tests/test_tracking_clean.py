"""`ddis runs clean`: which runs it ends, which it leaves alone, and what it says of them."""

import logging
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import mlflow
import pytest
from tracked import run_script, stages, start_script, wait_for, work_in

from ddis import cli
from ddis.tracking import process, read_record, record_path, stage_run
from ddis.tracking.clean import clean
from ddis.tracking.process import has_ended, process_tags
from ddis.tracking.sync import sync


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("repository")


@pytest.fixture(autouse=True)
def _in_folder(folder, monkeypatch):
    """One database for the whole module, as its tables take seconds; every test has a study of its own."""
    work_in(folder, monkeypatch)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)


def abandoned(study: str, **tags: str) -> str:
    """A run that is RUNNING in MLflow, of this process unless its tags say otherwise; returns its id."""
    with suppress(ZeroDivisionError), stage_run(study, "tables", {}) as run:
        number = run._run_id
        raise ZeroDivisionError
    client = mlflow.MlflowClient(f"sqlite:///{Path('mlflow.db').absolute()}")
    client.update_run(number, status="RUNNING")
    for name, value in tags.items():
        client.set_tag(number, f"ddis.{name}", value)
    record_path(study, "tables").unlink()
    return number


def status(study: str) -> str:
    [run] = stages("mlflow.db", study)["tables"]
    return run["status"]


def test_killed_outright_becomes_killed_and_what_is_at_work_stays(caplog):
    run_script("killed", "run.metrics({'loss': 1.0}, 0); run._send(); time.sleep(1); os._exit(9)", returncode=9)
    process = start_script("killed", "run._send(); print(flush=True); sys.stdin.read()", number=1)
    process.stdout.readline()
    with caplog.at_level(logging.INFO):
        clean("killed")
    runs = {name: run for name, [run] in stages("mlflow.db", "killed").items()}
    last = [line for line in read_record(record_path("killed", "stage-0")) if line["kind"] != "sent"][-1]
    assert (runs["stage-0"]["status"], runs["stage-0"]["times"][1]) == ("KILLED", last["time"])
    assert runs["stage-0"]["tags"]["ddis.error"] == "killed outright"
    assert (runs["stage-1"]["status"], runs["stage-1"]["times"][1]) == ("RUNNING", None)
    assert f"killed stage-1: at work, process {process.pid} of" in caplog.text and "1 runs ended, 0 left alone" in caplog.text
    process.send_signal(signal.SIGKILL)
    wait_for(lambda: has_ended(runs["stage-1"]["tags"]))
    assert process.poll() is None or process.returncode == -signal.SIGKILL
    clean()
    assert [run["status"] for [run] in stages("mlflow.db", "killed").values()] == ["KILLED", "KILLED"]
    # Restarted, the same run ends well.
    with stage_run("killed", "stage-0", {"number": 0}):
        pass
    [run] = stages("mlflow.db", "killed")["stage-0"]
    assert (run["id"], run["status"], run["tags"]["ddis.attempt"]) == (runs["stage-0"]["id"], "FINISHED", "2")
    assert "ddis.error" not in run["tags"]


def test_what_its_record_says(monkeypatch):
    """The tracker failed before the last word; the record knows that the stage finished."""
    with stage_run("finished", "tables", {}) as run:
        monkeypatch.setattr(run._watcher.tracker.client, "set_terminated", None)
    assert status("finished") == "RUNNING"
    [started] = stages("mlflow.db", "finished")["tables"]
    assert has_ended(started["tags"]) is False
    lines = read_record(record_path("finished", "tables"))
    monkeypatch.setattr("ddis.tracking.clean.has_ended", lambda tags, gone: True)
    clean("finished")
    [run] = stages("mlflow.db", "finished")["tables"]
    assert (run["status"], run["times"][1]) == ("FINISHED", lines[-1]["time"])


def test_processes_of_other_hosts_are_left_alone_and_named(capsys, caplog):
    abandoned("elsewhere", host="node17")
    with caplog.at_level(logging.INFO):
        assert cli.main(["runs", "clean", "elsewhere"]) == 0
    assert f"elsewhere tables: left alone, process {os.getpid()} of host node17 cannot be seen from here" in caplog.text
    assert "--gone HOST" in caplog.text and status("elsewhere") == "RUNNING"
    clean("elsewhere", gone=["node16"])
    assert status("elsewhere") == "RUNNING"
    assert cli.main(["runs", "clean", "elsewhere", "--gone", "node17"]) == 0
    assert status("elsewhere") == "KILLED"
    assert cli.main(["runs", "clean", "nowhere"]) == 2
    assert re.search("error: study 'nowhere' is not in MLflow at .*elsewhere", capsys.readouterr().err)


def test_a_number_that_is_used_again_is_another_process():
    own = process_tags()
    assert has_ended(own) is False
    assert has_ended(own | {"ddis.process_start": "another boot 1"}) is True
    assert has_ended({name: value for name, value in own.items() if name != "ddis.process_start"}) is None
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child_tags = own | {"ddis.pid": str(child.pid)}
        # Ended and not waited for, it still has its number.
        wait_for(lambda: has_ended(child_tags))
    assert has_ended(child_tags) is True
    assert has_ended({}) is None


SQUEUE = """#!/bin/sh
case $* in
  *--jobs=1) echo RUNNING ;;
  *--jobs=2) echo PENDING ;;
  *--jobs=3) ;;
  *--jobs=4) echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1 ;;
  *) echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1 ;;
esac
"""


@pytest.mark.parametrize(("job", "ended"), [("1", False), ("2", True), ("3", True), ("4", True), ("5", None), ("x", None)])
def test_of_another_host_its_slurm_job_decides(job, ended, tmp_path, monkeypatch):
    """At work; queued again; just ended; forgotten by Slurm; Slurm does not answer; no number."""
    squeue = tmp_path / "squeue"
    squeue.write_text(SQUEUE)
    squeue.chmod(squeue.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    tags = {"ddis.host": "node17", "ddis.pid": "1", "ddis.slurm_job": job}
    assert has_ended(tags) is ended
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert has_ended(tags) is None


def test_the_tags_name_host_process_and_job(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    with stage_run("tagged", "tables", {}):
        pass
    [run] = stages("mlflow.db", "tagged")["tables"]
    assert run["tags"]["ddis.slurm_job"] == "42" and run["tags"]["ddis.pid"] == str(os.getpid())
    assert run["tags"]["ddis.process_start"] == process.process_start(os.getpid())


def test_clean_and_sync_in_either_order(monkeypatch):
    """Killed with 9 before the tracker heard of its last metric: KILLED, with that metric, whichever comes first."""
    for number, actions in enumerate([(clean, sync), (sync, clean)]):
        study = f"order-{number}"
        run_script(study, "run._send(); at_work.SEND_SECONDS = run._due = 1e9; run.metrics({'l': 1.0}); os._exit(9)", 9)
        for action in actions:
            action(study)
        [run] = stages("mlflow.db", study)["stage-0"]
        assert run["status"] == "KILLED" and len(run["metrics"]) == 1
