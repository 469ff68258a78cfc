"""A disk that becomes full, and results that cannot be written: a clear error, no half file, and the same command goes on."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from breakable import STUDY, Place, mounted, needs_root

pytestmark = pytest.mark.faults

STAGES = [
    "generate/poisson/train",
    "card/poisson",
    "train/poisson/prior",
    "sample/poisson/sparse/ddis/10",
    "tables",
    "figures",
    "report",
]
LANES = 2


def fill(disk: Path, left: int) -> Path:
    """A file that leaves so many bytes of a disk."""
    filler = disk / "filler"
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(disk).free - left)
    return filler


def fail_for_want_of_space(place: Place, finished: Place, label: str) -> list[str]:
    """Runs a stage with less and less space missing, then with enough; returns the errors."""
    errors = []
    size = sum(path.stat().st_size for path in place.outputs(label))
    disk = place.folder / "results"
    # Nothing; enough for the first file or a part of it; all but a part of the last.
    for left in (0, 1 << 14, size // 2):
        place.remove(label)
        filler = fill(disk, left)
        done = place.run(*place.stage(label))
        filler.unlink()
        if done.returncode == 0:  # what it writes beside its files fitted in
            continue
        assert done.returncode == 2 and "Traceback" not in done.stdout, done.stdout
        [error] = [line for line in done.stdout.splitlines() if line.startswith("error: ")]
        assert "cannot write" in error and "No space left on device" in error, error
        assert f"disk {disk} has " in error and "make space, the same command goes on" in error, error
        assert place.digests(label).items() <= finished.digests(label).items()
        assert not list(place.results.rglob(".*.tmp"))
        errors.append(error)
    done = place.run(*place.stage(label))
    assert done.returncode == 0, done.stdout
    assert place.digests(label) == finished.digests(label)
    return errors


@needs_root
def test_a_full_disk_is_named_and_leaves_no_half_file(finished: Place, tmp_path: Path):
    def one(label: str) -> list[str]:
        folder = tmp_path / label.replace("/", "-")
        (folder / "results").mkdir(parents=True)
        with mounted(folder / "results", "-t", "tmpfs", "-o", "size=48m", "tmpfs"):
            shutil.copytree(finished.results, folder / "results" / STUDY.study)
            return fail_for_want_of_space(Place(folder), finished, label)

    with ThreadPoolExecutor(LANES) as pool:
        found = dict(zip(STAGES, pool.map(one, STAGES), strict=True))
    assert all(found.values()), found


@needs_root
def test_snakemake_goes_on_once_there_is_space(finished: Place, tmp_path: Path):
    place = finished.copy(tmp_path / "place")
    shutil.rmtree(place.folder / "results")
    with mounted(place.folder / "results", "-t", "tmpfs", "-o", "size=48m", "tmpfs"):
        shutil.copytree(finished.results, place.results)
        place.remove("figures", "report")
        filler = fill(place.folder / "results", 1 << 16)
        done = place.run(*place.snakemake())
        assert done.returncode != 0 and "No space left on device" in done.stdout, done.stdout[-5000:]
        filler.unlink()
        done = place.run(*place.snakemake())
        assert done.returncode == 0, done.stdout[-5000:]
        place.assert_whole(finished)


def test_results_that_cannot_be_written_are_said_before_any_work(place: Place):
    results = place.folder / "results"
    place.remove("train/poisson/prior")

    def refused() -> None:
        before = len(place.attempts("train/poisson/prior"))
        done = place.run(*place.stage("train/poisson/prior"))
        assert done.returncode == 2 and "Traceback" not in done.stdout, done.stdout
        assert f"error: cannot write {STUDY.folder}/models/poisson/prior" in done.stdout, done.stdout
        assert "make its folder writable, or work in another folder" in done.stdout
        assert len(place.attempts("train/poisson/prior")) == before
        done = place.run(*place.snakemake())
        # Ours, or Snakemake's own words where it would replace a file that is there.
        named = (f"cannot write {STUDY.folder}: ", "Write-protected output files")
        assert done.returncode != 0 and "Traceback" not in done.stdout, done.stdout[-5000:]
        assert any(text in done.stdout for text in named) and "Select jobs to execute" not in done.stdout, done.stdout[-5000:]

    if os.geteuid() == 0:  # whom permissions do not stop
        with mounted(results, "--bind", str(results), then="remount,bind,ro"):
            refused()
    else:
        folders = [path for path in (results, *results.rglob("*")) if path.is_dir()]
        for folder in folders:
            folder.chmod(0o555)
        refused()
        for folder in folders:
            folder.chmod(0o755)
    done = place.run(*place.stage("train/poisson/prior"))
    assert done.returncode == 0, done.stdout
