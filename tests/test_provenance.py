"""Provenance: what is recorded, and which changes of the code change its digest."""

import hashlib
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ddis import provenance


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A small package in the place of ddis, to be edited."""
    (tmp_path / "pde").mkdir()
    (tmp_path / "pde" / "__init__.py").write_text("")
    (tmp_path / "pde" / "poisson.py").write_text('"""Poisson."""\n\n\ndef solve(f):\n    """Solve."""\n    return f  # u\n')
    (tmp_path / "cli.py").write_text("x = 1\n")
    monkeypatch.setattr(provenance, "_PACKAGE_ROOT", tmp_path)
    return tmp_path


def git(*arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *identity, *arguments], check=True, capture_output=True)


def test_digest_ignores_docstrings_comments_and_layout(package):
    before = provenance.code_digest(["pde"])
    (package / "pde" / "poisson.py").write_text(
        '"""The Poisson equation."""\n\ndef solve(f):\n\n    # nothing to do\n    return (f)\n'
    )
    assert provenance.code_digest(["pde"]) == before
    (package / "cli.py").write_text("x = 2\n")
    assert provenance.code_digest(["pde"]) == before


@pytest.mark.parametrize("change", ["return 2 * f", "return F", "'f'\n    return f + 0"])
def test_digest_follows_the_code(package, change):
    before = provenance.code_digest(["pde.poisson"])
    (package / "pde" / "poisson.py").write_text(f"def solve(f):\n    {change}\n")
    assert provenance.code_digest(["pde.poisson"]) != before


def test_digest_follows_names_of_files(package):
    before = provenance.code_digest(["pde"])
    shutil.move(package / "pde" / "poisson.py", package / "pde" / "darcy.py")
    assert provenance.code_digest(["pde"]) != before
    (package / "pde" / "helmholtz.py").write_text("")
    assert provenance.code_digest(["pde"]) != before


def test_digest_does_not_depend_on_the_order(package):
    assert provenance.code_digest(["cli", "pde"]) == provenance.code_digest(["pde", "cli", "pde.poisson"])


def test_digest_refuses_unknown_modules():
    with pytest.raises(ValueError, match=r"'pde\.nowhere'"):
        provenance.code_digest(["pde.nowhere"])


def test_digest_of_the_whole_package_is_quick_and_light():
    script = (
        "import sys, time; from ddis.provenance import code_digest; start = time.process_time();"
        "code_digest(['fields', 'pde', 'data', 'models', 'training', 'sampling']); print(time.process_time() - start);"
        "print([name for name in ('torch', 'mlflow', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    seconds, heavy = done.stdout.splitlines()
    assert float(seconds) < 1.0 and heavy == "[]"


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
