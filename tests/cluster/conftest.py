"""The Slurm of these tests, and the study as it makes it."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from workplace import ROOT, Workplace, end_of, wait_until

from slurm import Slurm, missing_programs

GPUS = 2


@pytest.fixture(scope="session")
def slurm() -> Iterator[Slurm]:
    missing = missing_programs()
    if missing:
        pytest.fail(f"not installed: {', '.join(missing)}; tests/cluster/install.sh installs them", pytrace=False)
    # Short and private: munge's socket lies in it.
    with tempfile.TemporaryDirectory(prefix="ddis-slurm-") as folder, Slurm(Path(folder), GPUS) as running:
        yield running


@pytest.fixture(scope="session")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real profile with less patience, without retries, and with a signal that comes 55 s before the time limit."""
    content = yaml.safe_load((ROOT / "workflow" / "profiles" / "slurm" / "config.yaml").read_text(encoding="utf-8"))
    assert "--signal=TERM@120" in content["default-resources"]["slurm_extra"]
    content["default-resources"]["slurm_extra"] = "'--signal=TERM@55'"
    content |= {"jobs": 4, "retries": 0, "latency-wait": 10}
    folder = tmp_path_factory.mktemp("profile")
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    return folder


def trainings_wait(slurm: Slurm) -> bool:
    return {"rule_train_prior", "rule_train_on_pairs"} <= {job.partition("_wildcards")[0] for job in slurm.waiting()}


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, slurm: Slurm, profile: Path) -> Workplace:
    """The study as the cluster made it. Its two trainings are released together, so that they overlap on any machine."""
    place = Workplace(tmp_path_factory.mktemp("cluster"), slurm, profile)
    data = place.run("--until", "generate", "pairs")
    assert data.returncode == 0, data.stdout[-5000:]
    with slurm.held():
        snakemake = place.start()
        wait_until(lambda: snakemake.poll() is not None or trainings_wait(slurm), "both trainings are queued")
    done = end_of(snakemake)
    assert done.returncode == 0, done.stdout[-5000:]
    return place


@pytest.fixture(scope="session")
def local(tmp_path_factory: pytest.TempPathFactory, slurm: Slurm, profile: Path) -> Workplace:
    """The study as this machine makes it without Slurm."""
    place = Workplace(tmp_path_factory.mktemp("local"), slurm, profile)
    done = place.run_locally()
    assert done.returncode == 0, done.stdout[-5000:]
    return place


def without_prior(place: Workplace, folder: Path) -> Workplace:
    """The finished study without its prior, which is trained again, and all that follows with it."""
    copy = place.copy(folder)
    shutil.rmtree(copy.results / "models" / "poisson" / "prior")
    return copy


@pytest.fixture
def interrupted(finished: Workplace, tmp_path: Path) -> Workplace:
    return without_prior(finished, tmp_path / "study")


@pytest.fixture(scope="module")
def troubled(finished: Workplace, tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """A study in which one job fails after the other; the tests follow it in their order."""
    return without_prior(finished, tmp_path_factory.mktemp("troubled") / "study")
