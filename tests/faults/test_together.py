"""Two Snakemake processes on one study: the second refuses, and the first ends as if it were alone."""

import pytest
from breakable import STUDY, Place, end_of, kill, wait_until

pytestmark = pytest.mark.faults

REFUSALS = (f"works on study {STUDY.study}; wait for it", "cannot be locked")


def works(place: Place) -> bool:
    """Whether a Snakemake has begun to work on the study."""
    owner = place.folder / ".snakemake" / f"{STUDY.study}.owner"
    return owner.exists() and owner.read_text().endswith("working")


def test_a_second_snakemake_refuses_and_harms_nothing(finished: Place, place: Place):
    place.remove("train/poisson/prior", "sample/poisson/sparse/ddis/10", "tables", "figures", "report")
    first = place.start(*place.snakemake())
    wait_until(lambda: works(place), "the first one works")
    second = place.run(*place.snakemake())
    # Snakemake removes all locks of a folder when any call ends there.
    look = place.run(*place.snakemake("--dry-run"))
    third = place.run(*place.snakemake())
    assert first.poll() is None, "the first one ended too early to be met"
    for refused in (second, third):
        assert refused.returncode != 0 and any(text in refused.stdout for text in REFUSALS), refused.stdout[-5000:]
    assert look.returncode == 0, look.stdout[-5000:]
    done = end_of(first)
    assert done.returncode == 0, done.stdout[-5000:]
    place.assert_whole(finished)


def test_of_two_that_start_at_once_one_makes_the_study(finished: Place, place: Place):
    place.remove("tables", "figures", "report")
    ended = [end_of(process) for process in [place.start(*place.snakemake()) for _ in range(2)]]
    refused = [done for done in ended if done.returncode != 0]
    assert len(refused) < 2 and all(any(text in done.stdout for text in REFUSALS) for done in refused), refused
    done = place.run(*place.snakemake())
    assert done.returncode == 0 and "Nothing to be done" in done.stdout, done.stdout[-5000:]
    place.assert_whole(finished)


def test_a_reused_process_id_keeps_no_lock(finished: Place, place: Place):
    """Snakemake is killed, and its process id is another process's by the time of the next call."""
    place.remove("report")
    first = place.start(*place.snakemake())
    wait_until(lambda: works(place), "it works")
    kill(first)
    owner = place.folder / ".snakemake" / f"{STUDY.study}.owner"
    node, _, start, state = owner.read_text().split()
    owner.write_text(f"{node} 1 {start} {state}")
    done = place.run(*place.snakemake())
    assert done.returncode == 0, done.stdout[-5000:]
    place.assert_whole(finished)
