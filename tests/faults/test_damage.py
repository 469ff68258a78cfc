"""Truncated files are refused and named, and the command that is told repairs them; file times in the future do no harm."""

import os
import time
from pathlib import Path

import pytest
from breakable import STUDY, Place, kill, wait_until

pytestmark = pytest.mark.faults


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size * 2 // 3)


def repair(place: Place) -> str:
    """What `ddis verify` finds; then types what it tells."""
    found = place.run("ddis", "verify", STUDY.study)
    assert found.returncode == 1, found.stdout
    [line] = [line for line in found.stdout.splitlines() if line.startswith("repair:")]
    done = place.shell(line.removeprefix("repair:"))
    assert done.returncode == 0, done.stdout[-5000:]
    return found.stdout


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("data/poisson/test.h5", "sample/poisson/sparse/exact/100"),
        ("models/poisson/operator-10/weights.safetensors", "sample/poisson/sparse/ddis/10"),
        ("samples/poisson/sparse/exact-100.h5", "tables"),
    ],
)
def test_a_truncated_file_is_refused_and_made_again(finished: Place, place: Place, name: str, label: str):
    truncate(place.results / name)
    done = place.run(*place.stage(label))
    assert done.returncode == 2 and "Traceback" not in done.stdout, done.stdout
    assert f"error: {STUDY.folder}/{name} is truncated: it has" in done.stdout, done.stdout
    assert f"damaged    {name}: " in repair(place)
    place.assert_whole(finished)


@pytest.mark.parametrize(
    ("label", "pattern"),
    [
        ("train/poisson/prior", "prior-*.safetensors"),
        ("sample/poisson/sparse/ddis/10", "sample-sparse-ddis-10-*/0.safetensors"),
    ],
)
def test_truncated_unfinished_work_is_refused_and_removed_by_hand(finished: Place, place: Place, label: str, pattern: str):
    place.remove(label)
    work = place.results / "work" / "poisson"
    process = place.start(*place.stage(label))
    wait_until(lambda: list(work.glob(pattern)) or process.poll() is not None, "unfinished work is there")
    assert process.poll() is None, process.communicate()
    kill(process)
    [path] = work.glob(pattern)
    truncate(path)
    done = place.run(*place.stage(label))
    assert done.returncode == 2 and "Traceback" not in done.stdout, done.stdout
    name = path.relative_to(place.folder)
    assert f"error: {name} is truncated: it has" in done.stdout, done.stdout
    assert "remove it and run the same command again" in done.stdout
    path.unlink()
    done = place.run(*place.stage(label))
    assert done.returncode == 0, done.stdout
    assert place.digests(label) == finished.digests(label)


def future(*paths: Path) -> None:
    tomorrow = time.time() + 86400
    for path in paths:
        os.utime(path, (tomorrow, tomorrow))


def test_times_in_the_future_end_with_the_second_call(finished: Place, place: Place):
    """As after a clock that was wrong. Files whose bytes are the same make nothing be made again, whatever their times."""
    future(*(path for path in place.results.rglob("*") if path.is_file()))
    done = place.run(*place.snakemake())
    assert "have times in the future" in done.stdout and "Nothing to be done" in done.stdout, done.stdout[-5000:]
    time.sleep(1)
    future(place.results / "tables" / "errors.csv")
    done = place.run(*place.snakemake())
    assert done.returncode == 0 and "1 files of" in done.stdout and "Nothing to be done" in done.stdout, done.stdout[-5000:]
    again = place.run(*place.snakemake())
    assert "Nothing to be done" in again.stdout and "in the future" not in again.stdout
    place.assert_whole(finished)
