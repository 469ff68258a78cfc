"""kill -9 at drawn times: of Snakemake with its stages, of one stage under it, and of stages on their own.

The times are drawn from SEED. Through Snakemake they fall anywhere; on a stage's own command they fall between the moment when it
begins its work and the end that an unbroken run had, and are drawn again if the stage has ended by then. Whatever was hit, the
same command goes on, and all files have the SHA-256 of the unbroken run.
"""

import os
import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from breakable import STEPS, Place, end_of, kill, running_stages, wait_until

pytestmark = pytest.mark.faults

SEED = 20_250
SNAKEMAKE_KILLS, SNAKEMAKE_SECONDS = 9, (5.0, 16.0)
HITS, LANES = 3, 2


@dataclass(frozen=True)
class Kill:
    """One kill -9: what was sent it, the stages that it ended, and the seconds since their command began."""

    sent_to: str
    stages: tuple[str, ...]
    seconds: float


def kind(label: str) -> str:
    """Stages of a kind; the three trainings are three."""
    stage, *what = label.split("/")
    return f"train {what[1].partition('-')[0]}" if stage == "train" else stage


KINDS = dict.fromkeys(kind(label) for label in STEPS)


def kill_through_snakemake(place: Place, rng: np.random.Generator) -> list[Kill]:
    """Starts the study again and again until it is finished; the first times are cut short."""
    kills: list[Kill] = []
    while True:
        process, begin = place.start(*place.snakemake()), time.monotonic()
        if len(kills) == SNAKEMAKE_KILLS:
            done = end_of(process)
            assert done.returncode == 0, done.stdout[-5000:]
            return kills
        whole, delay = rng.random() < 0.5, rng.uniform(*SNAKEMAKE_SECONDS)
        while time.monotonic() - begin < delay and process.poll() is None:
            time.sleep(0.01)
        stages = running_stages(process.pid)
        if process.poll() is not None:
            assert process.returncode == 0, process.communicate()[0][-5000:]
            return kills
        if whole or not stages:
            kill(process)
            kills.append(Kill("snakemake and its stages", tuple(stages), time.monotonic() - begin))
        else:
            label = list(stages)[rng.integers(len(stages))]
            os.kill(stages[label], signal.SIGKILL)
            kills.append(Kill("one stage under snakemake", (label,), time.monotonic() - begin))
            done = end_of(process)
            assert done.returncode != 0 and "Error in rule" in done.stdout, done.stdout[-5000:]


def kill_stage(place: Place, label: str, seconds: float, times: int, rng: np.random.Generator) -> list[Kill]:
    """Kills the stage's own command so many times, then lets it end. `seconds`: what its work took in the unbroken run."""
    kills: list[Kill] = []
    place.remove(label)
    while len(kills) < times:
        before, delay = len(place.attempts(label)), rng.uniform(0, seconds)
        process, begin = place.start(*place.stage(label)), time.monotonic()
        wait_until(lambda: len(place.attempts(label)) > before or process.poll() is not None, f"{label} begins")  # noqa: B023
        time.sleep(delay)
        kill(process)
        if place.attempts(label)[-1]["end"] is None:
            kills.append(Kill("the stage's own command", (label,), time.monotonic() - begin))
        else:
            place.remove(label)
    done = place.run(*place.stage(label))
    assert done.returncode == 0, done.stdout
    return kills


def test_killed_anywhere_the_study_ends_with_the_same_bytes(finished: Place, tmp_path: Path, capsys: pytest.CaptureFixture):
    rng, *each = np.random.default_rng(SEED).spawn(1 + len(KINDS))
    rngs = dict(zip(KINDS, each, strict=True))
    broken = Place(tmp_path / "snakemake")
    kills = kill_through_snakemake(broken, rng)
    broken.assert_whole(finished)
    assert "Nothing to be done" in broken.run(*broken.snakemake()).stdout

    hits = Counter(kind(label) for one in kills for label in one.stages)
    wanted = {name: HITS - hits[name] for name in KINDS if hits[name] < HITS}
    # One step of a kind, each in a copy of its own, so that several can be broken at once.
    chosen = {name: next(label for label in STEPS if kind(label) == name) for name in wanted}
    lasted = {label: (a := finished.attempts(label)[-1])["end"] - a["begin"] for label in chosen.values()}
    places = {name: finished.copy(tmp_path / name.replace(" ", "-")) for name in chosen}

    def one(name: str) -> list[Kill]:
        return kill_stage(places[name], chosen[name], lasted[chosen[name]], wanted[name], rngs[name])

    with ThreadPoolExecutor(LANES) as pool:
        kills += [kill for found in pool.map(one, chosen) for kill in found]
    with capsys.disabled():
        print(f"\n{len(kills)} times kill -9, seed {SEED}")
        for number, sent in enumerate(kills, 1):
            print(f"{number:4} {sent.sent_to:26} {sent.seconds:6.2f} s  {', '.join(sent.stages) or 'no stage'}")

    assert len(kills) >= 20
    for name, place in places.items():
        assert sum(attempt["end"] is None for attempt in place.attempts(chosen[name])) == wanted[name]
        place.assert_same(finished)
        # The tables are older than samples that hold their own times.
        assert place.findings() <= {"stale"}
    hits = Counter(kind(label) for one in kills for label in one.stages)
    assert set(hits) == set(KINDS) and min(hits.values()) >= HITS, hits
