"""A training shared by two CPU processes is that of one process, up to rounding; either goes on where the other stopped."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from trainings import denoiser_trainer, finish, load, operator_trainer, save, study_with_data, wiener_trainer

from ddis.config import Study
from ddis.errors import InputError
from ddis.models.checkpoint import load_tensors
from ddis.stages import train
from ddis.tracking import read_record, record_path
from ddis.training.distributed import Ranks
from ddis.training.loop import Trainer

ROOT = Path(__file__).parents[1]
# Of weights in norm, and of losses. Found: 2e-15 in float64, 6e-7 in float32, where only the order of sums differs. Adam's
# moments of single weights may be what is left of sums that cancel.
DOUBLE, SINGLE = 1e-12, 1e-5


def torchrun(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Two processes of a script, or of a module after `-m`."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


@pytest.fixture(scope="module")
def ends(tmp_path_factory) -> Path:
    """States at the end of the trainings of `trainings.all_ways` in two processes."""
    folder = tmp_path_factory.mktemp("ends")
    torch.set_num_threads(1)
    first = denoiser_trainer()
    for record in first.run():
        if record.step == 4:
            break
    save(first, folder / "one-process")
    process = torchrun(folder, str(ROOT / "tests" / "trainings.py"), str(folder))
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return folder


def assert_close(one: Trainer, path: Path, tolerance: float) -> None:
    """The states agree: same step; weights within a relative tolerance in norm, moments within 100 times that; the history."""
    expected, progress = one.state()
    found, metadata = load_tensors(path)
    assert expected.keys() == found.keys() and metadata["progress"]["step"] == progress["step"]
    for name, tensor in expected.items():
        factor = 100 if name.startswith("adam.") else 1
        assert float((found[name] - tensor).norm()) <= factor * tolerance * float(tensor.norm()), name
    for row, other in zip(progress["history"], metadata["progress"]["history"], strict=True):
        for key in ("train_loss", "validation_loss", "learning_rate"):
            assert other[key] == pytest.approx(row[key], rel=tolerance)


def test_two_processes_train_as_one_does(ends):
    """Batches, noise, dropout, clipping, average and validation; in float64 nothing but the last digits differs."""
    assert_close(finish(denoiser_trainer(dtype=torch.float64)), ends / "double-0", DOUBLE)
    assert_close(finish(denoiser_trainer()), ends / "denoiser-0", SINGLE)
    assert_close(finish(wiener_trainer(dtype=torch.float64)), ends / "wiener-0", DOUBLE)
    assert_close(finish(operator_trainer()), ends / "operator-0", SINGLE)


def test_other_random_numbers_would_be_seen():
    """Negative control: the second half of the batch with the noise of the first."""
    right, wrong = finish(denoiser_trainer()), denoiser_trainer()
    loss = wrong.loss
    wrong.loss = lambda indices, step: (loss(indices[:2], step) + loss(indices[2:], step)) / 2
    pairs = zip(right.best.values(), finish(wrong).best.values(), strict=True)
    assert max(float((a - b).norm() / a.norm()) for a, b in pairs) > 1000 * SINGLE


def test_all_processes_hold_the_same_state(ends):
    for name in ("double", "denoiser", "wiener", "operator", "resumed", "stopped"):
        (first, _), (second, _) = (load_tensors(ends / f"{name}-{rank}") for rank in range(2))
        assert all(torch.equal(tensor, second[key]) for key, tensor in first.items()), name


def test_two_processes_go_on_where_one_stopped(ends):
    assert_close(finish(denoiser_trainer()), ends / "resumed-0", SINGLE)


def test_a_signal_to_one_process_stops_both_and_one_process_goes_on(ends):
    assert_close(load(denoiser_trainer(), ends / "one-process"), ends / "stopped-0", SINGLE)
    resumed = finish(load(denoiser_trainer(), ends / "stopped-0"))
    save(resumed, ends / "resumed-by-one")
    assert_close(finish(denoiser_trainer()), ends / "resumed-by-one", SINGLE)


def test_a_batch_is_divided_equally():
    assert [Ranks(rank, 3).places(12) for rank in range(3)] == [slice(0, 4), slice(4, 8), slice(8, 12)]
    with pytest.raises(InputError, match=r"training.batch 4 for 3 processes; accepted: multiples of 3"):
        Ranks(0, 3).places(4)


@pytest.fixture
def study(tmp_path, monkeypatch) -> Study:
    """A study with data for a prior of 200 steps, in the working directory."""
    content = yaml.safe_load((ROOT / "tests" / "tiny.yaml").read_text()) | {"training_processes": 2, "checkpoint_seconds": 1000}
    content["prior"]["training"] = {"steps": 200, "batch": 8, "validate_every": 10}
    monkeypatch.chdir(tmp_path)
    return study_with_data(content)


def test_the_stage_under_torchrun_stops_at_a_signal_and_goes_on(study, tmp_path):
    """SIGTERM to the second process alone; then one process goes on. One process writes all files and the tracking record."""
    arguments = ["-m", "ddis", "train", "--config", str(study.folder / "config.yaml"), "--problem", "poisson", "--model", "prior"]
    process = torchrun(tmp_path, *arguments)
    record = record_path(study.study, "train/poisson/prior")
    while not any(line["kind"] == "metrics" for line in read_record(record)):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    os.kill(worker(process.pid, 1), signal.SIGTERM)
    output, _ = process.communicate(timeout=300)
    assert process.returncode != 0
    [step] = re.findall(r"^interrupted at step (\d+); the same command goes on", output, re.MULTILINE)
    [checkpoint] = (study.folder / "work" / "poisson").glob("prior-*.safetensors")
    assert load_tensors(checkpoint)[1]["progress"]["step"] == int(step) < 200
    lines = read_record(record)
    assert [line["kind"] for line in lines].count("start") == 1 and lines[-1]["status"] == "KILLED"
    train.run(study, "poisson", "prior")
    weights = study.folder / "models" / "poisson" / "prior" / "weights.safetensors"
    resumed, _ = load_tensors(weights)
    assert not checkpoint.exists()
    weights.unlink()
    train.run(study, "poisson", "prior")
    alone, _ = load_tensors(weights)
    # 200 steps of Adam amplify the rounding.
    assert all(float((alone[name] - resumed[name]).norm()) <= 1e-2 * float(alone[name].norm()) for name in alone)


def worker(launcher: int, rank: int) -> int:
    """The process of a rank that torchrun started."""
    for child in map(int, Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()):
        if f"RANK={rank}".encode() in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
            return child
    raise AssertionError(f"no process of rank {rank}")


def test_a_study_whose_batches_cannot_be_divided_is_refused():
    content = yaml.safe_load((ROOT / "tests" / "tiny.yaml").read_text())
    with pytest.raises(InputError, match=r"prior.training.batch 8: cannot be divided among training_processes 3"):
        Study.load(content | {"training_processes": 3})
    one, two = Study.load(content), Study.load(content | {"training_processes": 2})
    assert one.digest("train", problem="poisson", model="prior") == two.digest("train", problem="poisson", model="prior")
