"""A signal stops a training after the step that is under way, with its checkpoint; the same command ends with the same bytes."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from trainings import study_with_data

from ddis import signals
from ddis.config import Study
from ddis.models.checkpoint import load_tensors
from ddis.signals import Stopped, StopRequest, Terminated, install_sigterm_handler
from ddis.stages import train
from ddis.tracking import read_record, record_path
from ddis.training.loop import Trainer

ROOT = Path(__file__).parents[1]
STEPS = 50
BOTH = [signal.SIGINT, signal.SIGTERM]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A working directory with the data of a study, whose trainings are longer than those of tiny.yaml."""
    folder = tmp_path_factory.mktemp("interrupted")
    content = yaml.safe_load((ROOT / "tests" / "tiny.yaml").read_text()) | {"checkpoint_seconds": 1000}
    for part in ("prior", "operator"):
        content[part]["training"] = {"steps": STEPS, "batch": 8, "validate_every": 10}
    content["prior"]["backbone"]["dropout"] = 0.1
    content["operator"]["at"] = {10: {"steps": 300}}  # long enough for a signal from outside
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        study_with_data(content)
    return folder


@pytest.fixture
def study(folder, monkeypatch) -> Study:
    monkeypatch.chdir(folder)
    return Study.load(folder / "results" / "tiny" / "config.yaml")


@pytest.fixture
def handlers() -> Iterator[None]:
    """Those of `ddis`; the test's own come back."""
    before = {number: signal.getsignal(number) for number in BOTH}
    install_sigterm_handler()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def weights_of(study: Study, model: str) -> Path:
    return study.folder / "models" / "poisson" / model / "weights.safetensors"


def checkpoints(study: Study, model: str) -> list[Path]:
    return list((study.folder / "work" / "poisson").glob(f"{model}-*.safetensors"))


@pytest.mark.parametrize("number", BOTH)
def test_the_first_signal_is_noted_and_a_later_one_acts(handlers, monkeypatch, number):
    monkeypatch.setattr(signals, "COPIES_SECONDS", 0.1)
    with pytest.raises(KeyboardInterrupt if number == signal.SIGINT else Terminated), StopRequest() as request:
        assert request.received() == 0
        signal.raise_signal(number)
        signal.raise_signal(signal.SIGTERM)  # torchrun's copy of a Ctrl-C in the terminal
        assert request.received() == number
        time.sleep(0.2)
        signal.raise_signal(number)
        pytest.fail("the second signal was lost")


def test_handlers_come_back_and_ignored_signals_stay_ignored(handlers):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    before = [signal.getsignal(number) for number in BOTH]
    with StopRequest() as request:
        signal.raise_signal(signal.SIGINT)
        assert request.received() == 0
    assert [signal.getsignal(number) for number in BOTH] == before


@pytest.mark.parametrize(("number", "model"), [(signal.SIGINT, "operator-100"), (signal.SIGTERM, "prior")])
def test_stopped_in_a_step_and_resumed_gives_the_bytes_of_an_unbroken_training(study, handlers, monkeypatch, number, model):
    """The signal comes in steps 1, 38 and the last but one, while they are under way."""
    train.run(study, "poisson", model)
    unbroken = weights_of(study, model).read_bytes()
    weights_of(study, model).unlink()
    real, last = Trainer._step, -1

    def step(trainer: Trainer) -> tuple[float, float]:
        nonlocal last
        last = trainer.progress.step
        if last in (0, 37, STEPS - 2):
            os.kill(os.getpid(), number)
        return real(trainer)

    monkeypatch.setattr(Trainer, "_step", step)
    for index in (0, 37, STEPS - 2):
        with pytest.raises(Stopped, match=f"interrupted at step {index + 1}$") as stopped:
            train.run(study, "poisson", model)
        assert last == index and stopped.value.number == number
        [checkpoint] = checkpoints(study, model)
        assert load_tensors(checkpoint)[1]["progress"]["step"] == index + 1
        assert not weights_of(study, model).exists()
        assert read_record(record_path(study.study, f"train/poisson/{model}"))[-1]["status"] == "KILLED"
    train.run(study, "poisson", model)
    assert weights_of(study, model).read_bytes() == unbroken
    assert not checkpoints(study, model)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_command_ends_with_its_status_and_one_line(study, folder, number, status):
    model, record = "operator-10", record_path(study.study, "train/poisson/operator-10")
    already = len(read_record(record))
    process = subprocess.Popen(
        [sys.executable, "-m", "ddis", "train", "--config", "results/tiny/config.yaml", "--problem", "poisson", "--model", model],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    while not any(line["kind"] == "metrics" for line in read_record(record)[already:]):
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == status, errors
    [step] = re.findall(r"^interrupted at step (\d+); the same command goes on", errors, re.MULTILINE)
    assert "Traceback" not in errors
    [checkpoint] = checkpoints(study, model)
    assert load_tensors(checkpoint)[1]["progress"]["step"] == int(step) < 300
    checkpoint.unlink()
