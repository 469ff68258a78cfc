"""Provenance: what is recorded of how a result was made."""

import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path

from ddis import provenance


def git(*arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *identity, *arguments], check=True, capture_output=True)


def test_file_digest(tmp_path):
    (tmp_path / "a").write_bytes(b"abc" * 10**6)
    assert provenance.file_digest(tmp_path / "a") == hashlib.sha256(b"abc" * 10**6).hexdigest()


def test_git_state(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert provenance.git_state() == {"git_commit": None, "git_dirty": None}
    git("init")
    assert provenance.git_state() == {"git_commit": None, "git_dirty": False}
    Path("a").write_text("1")
    Path(".gitignore").write_text("results/\n")
    git("add", ".")
    git("commit", "-m", "a")
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    Path("results").mkdir()
    Path("results/ignored").write_text("1")
    assert provenance.git_state() == {"git_commit": head, "git_dirty": False}
    Path("a").write_text("2")
    assert provenance.git_state() == {"git_commit": head, "git_dirty": True}


def test_no_git_program(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert provenance.git_state() == {"git_commit": None, "git_dirty": None}


def test_collect(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["ddis", "train", "--model", "a b"])
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    record = provenance.collect({"steps": 10}, 7)
    assert json.loads(json.dumps(record)) == record
    assert record["settings"] == {"steps": 10} and record["seed"] == 7 and record["threads"] == 3
    assert record["command"] == "ddis train --model 'a b'" and record["device"]
    assert record["versions"]["torch"] and record["python"].startswith("3.")
    assert time.time() - 60 < provenance.datetime.fromisoformat(record["started"]).timestamp() <= time.time()
    tags = provenance.tags(record)
    assert tags["version.torch"] == record["versions"]["torch"] and tags["seed"] == "7"
    assert not {"settings", "versions", "slurm_job"} & {key for key in tags if record.get(key) is None or key == "settings"}


def test_peak_memory_grows_with_use():
    script = (
        "from ddis.provenance import peak_memory_mb; before = peak_memory_mb(); block = bytearray(2**28);"
        "print(before, peak_memory_mb())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    before, after = map(float, done.stdout.split())
    assert 3 < before < 200 and 240 < after - before < 300
