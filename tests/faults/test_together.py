"""Two Snakemake processes on one study: the second refuses, and the first ends as if it were alone."""

import pytest
from breakable import STUDY, Place, end_of, kill, running_stages, wait_until

from ddis.stages.owner import OWNER

pytestmark = pytest.mark.faults

REFUSAL = f"works on study {STUDY.study}; wait for it"


def test_a_second_snakemake_refuses_and_harms_nothing(finished: Place, place: Place):
    """Whatever was called in between: outputs of the first one are unfinished, and Snakemake's own lock is no help."""
    place.remove("train/poisson/prior", "sample/poisson/sparse/ddis/10", "tables", "figures", "report")
    first = place.start(*place.snakemake())
    wait_until(lambda: (place.results / OWNER).exists(), "the first one works")
    refused = [place.run(*place.snakemake())]
    wait_until(lambda: running_stages(first.pid), "it trains")
    looks = [place.run(*place.snakemake(option)) for option in ("--dry-run", "--unlock", "--summary")]
    refused += [place.run(*place.snakemake(*options)) for options in ((), ("--rerun-incomplete",))]
    assert first.poll() is None, "the first one ended too early to be met"
    for done in refused:
        assert done.returncode != 0 and REFUSAL in done.stdout, done.stdout[-5000:]
    for done in looks:
        assert done.returncode == 0, done.stdout[-5000:]
    done = end_of(first)
    assert done.returncode == 0, done.stdout[-5000:]
    place.assert_whole(finished)


def test_of_two_that_start_at_once_one_makes_the_study(finished: Place, place: Place):
    place.remove("tables", "figures", "report")
    ended = [end_of(process) for process in [place.start(*place.snakemake()) for _ in range(2)]]
    refused = [done for done in ended if done.returncode != 0]
    assert len(refused) < 2 and all(REFUSAL in done.stdout for done in refused), refused
    done = place.run(*place.snakemake())
    assert done.returncode == 0 and "Nothing to be done" in done.stdout, done.stdout[-5000:]
    place.assert_whole(finished)


def test_a_reused_process_id_keeps_no_lock(finished: Place, place: Place):
    """Snakemake is killed, and its process id is another process's by the time of the next call."""
    place.remove("report")
    first, owner = place.start(*place.snakemake()), place.results / OWNER
    wait_until(owner.exists, "it works")
    kill(first)
    node, _ = owner.read_text().split()
    owner.write_text(f"{node} 1\n")
    done = place.run(*place.snakemake())
    assert done.returncode == 0, done.stdout[-5000:]
    place.assert_whole(finished)
