"""`ddis generate`: the same bits for any number of workers, after a kill, and in a study or outside one."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from ddis.cli import main
from ddis.config import Study
from ddis.data import generate
from ddis.data.generate import Request, generate_file, make_shard, shard_size, split_indices
from ddis.data.hdf5 import read_attributes
from ddis.data.store import PAIRS, read_pairs
from ddis.errors import InputError
from ddis.stages import generate as generate_stage

ROOT = Path(__file__).parents[1]
REQUEST = Request("poisson", {}, 8, 1700, 5)  # four shards, the last one not full


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "a.h5"
    generate_file(path, REQUEST, "key", {})
    return path


def run_cli(folder: Path, *arguments: str, **options) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": f"{ROOT}", "DDIS_TRACKING": "off"}
    command = [sys.executable, "-m", "ddis.cli", *arguments]
    return subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True, **options)


def test_splits_share_no_field():
    parts = [split_indices(split, 50_000) for split in ("train", "validation", "test")]
    assert len(np.unique(np.concatenate(parts))) == 150_000


@pytest.mark.parametrize(("resolution", "size"), [(8, 512), (32, 512), (64, 256), (128, 64), (256, 16), (2048, 1)])
def test_shards_are_bounded_in_memory(resolution, size):
    """The size is part of what fixes the bits: it must not change."""
    assert shard_size(resolution**2) == size


def test_the_pairs_are_the_problems_own(whole):
    pairs, problem = read_pairs(whole, 8, 1700), REQUEST.make_problem()
    a = problem.sample_coefficients([0, 600, 1699], 8, 5)
    assert np.array_equal(pairs.coefficient[[0, 600, 1699]], a.float().numpy())
    assert np.allclose(pairs.solution[[0, 600, 1699]], problem.solve(a).numpy(), rtol=1e-6, atol=1e-9)
    assert pairs.attributes["residual"] < 1e-12
    assert pairs.attributes["source"] == {"kind": "generated", "seed": 5, "split": "train"}


def test_workers_do_not_change_the_file(tmp_path, whole):
    """Three here; two, and one, where a run is killed below."""
    done: list[int] = []
    generate_file(tmp_path / "a.h5", REQUEST, "key", {}, 3, done.append)
    assert (tmp_path / "a.h5").read_bytes() == whole.read_bytes()
    assert done == [512, 1024, 1536, 1700]
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]


def test_threads_do_not_change_the_fields():
    before, reference = torch.get_num_threads(), make_shard(REQUEST, 3)
    torch.set_num_threads(2)
    try:
        changed = make_shard(REQUEST, 3)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert all(np.array_equal(x, y) for x, y in zip(reference[:2], changed[:2], strict=True))


def test_finished_shards_are_not_made_again(tmp_path, whole, monkeypatch):
    path, made = tmp_path / "a.h5", []
    folder = tmp_path / ".a.h5.shards"
    for shard in (0, 2):
        generate.write_shard(REQUEST, folder, "key", shard)
    real = generate.make_shard
    monkeypatch.setattr(generate, "make_shard", lambda request, shard: made.append(shard) or real(request, shard))
    generate_file(path, REQUEST, "key", {})
    assert made == [1, 3]
    assert path.read_bytes() == whole.read_bytes() and not folder.exists()


def test_shards_of_another_configuration_and_damaged_ones_are_not_taken(tmp_path, whole):
    folder = tmp_path / ".a.h5.shards"
    generate.write_shard(Request("poisson", {}, 8, 1700, 6), folder, "other key", 0)
    for shard in (1, 2):
        generate.write_shard(REQUEST, folder, "key", shard)
    content = bytearray((folder / "000001.h5").read_bytes())
    content[len(content) // 2] ^= 255
    (folder / "000001.h5").write_bytes(content)
    (folder / "000002.h5").write_bytes((folder / "000002.h5").read_bytes()[:5000])
    generate_file(tmp_path / "a.h5", REQUEST, "key", {})
    assert (tmp_path / "a.h5").read_bytes() == whole.read_bytes()


def test_shards_that_another_process_clears_away_are_made_again(tmp_path, whole):
    folder, cleared = tmp_path / ".a.h5.shards", []

    def clear(done: int) -> None:
        if not cleared:
            cleared.append(shutil.rmtree(folder))

    for shard in range(4):
        generate.write_shard(REQUEST, folder, "key", shard)
    generate_file(tmp_path / "a.h5", REQUEST, "key", {}, progress=clear)
    assert (tmp_path / "a.h5").read_bytes() == whole.read_bytes()


LONG = Request("poisson", {}, 32, 12 * 512, 1)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("unbroken") / "b.h5"
    generate_stage.run_file(LONG, path, 1)
    return path.read_bytes()


@pytest.mark.parametrize("workers", [1, 2])
def test_goes_on_after_kill(tmp_path, unbroken, workers, monkeypatch):
    """kill -9 in the middle: the workers end too, and the same command goes on with the shards that are there."""
    arguments = f"generate --pde poisson --resolution 32 --count {LONG.count} --seed 1 --workers {workers} --output b.h5".split()
    process = run_cli(tmp_path, *arguments, start_new_session=True)
    shards = tmp_path / ".b.h5.shards"
    deadline = time.monotonic() + 60
    while len(list(shards.glob("0*.h5"))) < 3:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert session_ends(process.pid), "workers outlive their parent"
    kept = {int(path.stem) for path in shards.glob("0*.h5")}
    assert 3 <= len(kept) < LONG.shards and not (tmp_path / "b.h5").exists()
    made, real = [], generate.make_shard
    monkeypatch.setattr(generate, "make_shard", lambda request, shard: made.append(shard) or real(request, shard))
    generate_stage.run_file(LONG, tmp_path / "b.h5", 1)
    assert set(made) == set(range(LONG.shards)) - kept
    assert (tmp_path / "b.h5").read_bytes() == unbroken
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".tmp"] == ["b.h5"]


@pytest.mark.parametrize(("number", "status", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")])
def test_signals_end_the_workers_and_keep_the_shards(tmp_path, number, status, word):
    """To all processes at once, as a terminal or a cluster sends them."""
    arguments = f"generate --pde poisson --resolution 32 --count {20_000} --seed 1 --workers 2 --output b.h5".split()
    process = run_cli(tmp_path, *arguments, start_new_session=True)
    shards = tmp_path / ".b.h5.shards"
    while not list(shards.glob("0*.h5")):
        assert process.poll() is None
        time.sleep(0.005)
    os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == status and errors.splitlines()[-1].startswith(f"{word}; the same command goes on"), errors
    assert "Traceback" not in errors
    assert session_ends(process.pid)
    assert [path.name for path in tmp_path.iterdir()] == [".b.h5.shards"]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_a_callback_is_not_lost(tmp_path, number, status):
    """Python drops exceptions in the callbacks of weak references, which h5py uses much."""
    program = f"""
import os, sys, time, weakref
from ddis import cli
def work(arguments):
    thing = set()
    reference = weakref.ref(thing, lambda _: os.kill(os.getpid(), {int(number)}))
    del thing
    time.sleep(20)
cli.dispatch = work
sys.exit(cli.main(["schema"]))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == status and "Traceback" not in done.stderr


def test_a_killed_worker_is_one_clear_error(tmp_path, monkeypatch):
    made = generate._finished(_kill_this_process, [0, 1], 2)
    with pytest.raises(InputError, match="one of 2 workers was killed, perhaps for want of memory"):
        list(made)


def _kill_this_process(shard: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--pde", "poissson"], "pde 'poissson' is unknown; accepted: poisson"),
        (["--pde", "no.such:Thing"], "pde 'no.such:Thing' cannot be loaded"),
        (["--set", "tau"], "--set tau: accepted: KEY=VALUE"),
        (["--set", "tau=3", "--set", "tau=4"], "--set tau=4: accepted: KEY=VALUE, each key once"),
        (["--set", "tua=3"], "parameter 'tua'"),
        (["--set", "tau=high"], "parameter 'tau'"),
        (["--resolution", "3"], "resolution 3: too small for the stencil; accepted: at least 4"),
        (["--count", "0"], "count 0; accepted: a whole number, 1 or more"),
        (["--seed", "-1"], "seed -1; accepted"),
        (["--seed", str(2**70)], f"seed {2**70}; accepted: a whole number, 0 or more, and below 2^63"),
        (["--split", "training"], "split 'training'; accepted: train, validation, test"),
        (["--workers", "0"], "--workers 0; accepted: 1 or more"),
        (["--pde", "navier-stokes", "--set", "step=50", "--set", "time=50"], "parameter step 50: unstable"),
        (["--pde", "helmholtz", "--set", "k=100"], "parameter k 100 at resolution 8"),
        (["--problem", "poisson"], "give either --config, --problem and --split, or --pde"),
    ],
)
def test_bad_input(tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    base = {"--pde": "poisson", "--resolution": "8", "--count": "4", "--output": "x/a.h5"}
    others = [part for option, value in base.items() if option not in options for part in (option, value)]
    assert main(["generate", *others, *options]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_file_that_is_there(tmp_path, capsys):
    base = ["generate", "--pde", "poisson", "--resolution", "8", "--count", "4", "--output", str(tmp_path / "a.h5")]
    assert main([*base, "--set", "tau=5"]) == 0
    before = (tmp_path / "a.h5").stat().st_mtime_ns
    assert read_attributes(tmp_path / "a.h5", PAIRS)["parameters"] == {"alpha": 2.0, "tau": 5.0}
    assert main([*base, "--set", "tau=5"]) == 0
    assert (tmp_path / "a.h5").stat().st_mtime_ns == before
    assert main(base) == 2
    assert "exists and holds something else; choose another name" in capsys.readouterr().err


def test_non_finite_solutions_leave_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr("ddis.pde.poisson.Poisson.solve", lambda self, a: a / 0)
    with pytest.raises(InputError, match=r"solution for .* has NaN or infinite values; nothing was written"):
        generate_file(tmp_path / "a.h5", REQUEST, "key", {})
    assert not (tmp_path / "a.h5").exists()


def study(**data) -> Study:
    sizes = {"resolution": 8, "train": 1100, "validation": 10, "test": 3, **data}
    return Study.load(
        {
            "study": "t",
            "seed": 5,
            "problems": {"poisson": {"pde": "poisson"}},
            "data": sizes,
            "fractions": [1.0],
            "observations": {"sparse": {"count": 10}},
            "runs": {"exact": {}},
        }
    )


def test_workers_are_no_part_of_a_result():
    digests = {study(workers=n).digest("generate", problem="poisson", split="train") for n in (1, 2)}
    assert digests == {study().digest("generate", problem="poisson", split="train")} and len(digests) == 1


def test_a_study_gives_the_fields_of_the_command(tmp_path, monkeypatch, whole):
    monkeypatch.chdir(tmp_path)
    generate_stage.run(study(), "poisson", "train")
    path = tmp_path / "results/t/data/poisson/train.h5"
    ours, theirs = read_pairs(path, 8, 1100), read_pairs(whole)
    assert np.array_equal(ours.coefficient[:1024], theirs.coefficient[:1024])
    assert np.array_equal(ours.solution[:1024], theirs.solution[:1024])
    assert ours.attributes["configuration"] == study().digest("generate", problem="poisson", split="train")
    generate_stage.run(study(), "poisson", "validation")
    other = read_pairs(path.with_name("validation.h5")).coefficient
    assert np.abs(other[:, None] - ours.coefficient[None, :10]).max(axis=(2, 3)).min() > 0.01


def session_ends(session: int) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if not [p for p in Path("/proc").glob("[0-9]*") if _session(p) == session]:
            return True
        time.sleep(0.1)
    return False


def _session(process: Path) -> int | None:
    try:
        fields = (process / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[3])
