"""The small study, made without a fault."""

from pathlib import Path

import pytest
from breakable import Place


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The study as an unbroken run makes it. Not to be changed."""
    place = Place(tmp_path_factory.mktemp("unbroken"))
    done = place.run(*place.snakemake())
    assert done.returncode == 0, done.stdout[-5000:]
    return place


@pytest.fixture
def place(finished: Place, tmp_path: Path) -> Place:
    """A copy of the finished study, to be broken."""
    return finished.copy(tmp_path / "place")
