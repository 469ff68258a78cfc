"""Progress lines, with a clock that the test turns."""

import logging

import pytest

from ddis.progress import Progress, format_seconds


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


def run(clock, progress, steps, seconds_per_step, **numbers):
    for step in steps:
        clock.now += seconds_per_step
        progress.update(step, **numbers)


def test_lines_are_rare_and_tell_the_time_left(clock, caplog):
    caplog.set_level(logging.INFO)
    progress = Progress("poisson prior", 2000, clock=clock)
    run(clock, progress, range(1, 2001), 0.0625, loss=0.012345)
    progress.finish()
    # 125 s: after 2 s, then every 10 s, and the end.
    assert len(caplog.messages) == 14
    assert caplog.messages[0] == "poisson prior: 32/2000 steps (1 %), loss 0.0123, 2 min 3 s left"
    assert caplog.messages[-1] == "poisson prior: 2000/2000 steps (100 %), loss 0.0123, took 2 min 5 s"


def test_short_work_logs_its_end_only(clock, caplog):
    caplog.set_level(logging.INFO)
    progress = Progress("pairs", 10, unit="fields", clock=clock)
    run(clock, progress, range(1, 11), 0.1)
    progress.finish()
    assert caplog.messages == ["pairs: 10/10 fields (100 %), took 1 s"]


def test_time_left_after_a_resume_counts_new_steps_only(clock, caplog):
    caplog.set_level(logging.INFO)
    progress = Progress("prior", 1000, start=900, clock=clock)
    run(clock, progress, range(901, 905), 1.0)
    assert caplog.messages == ["prior: 902/1000 steps (90 %), 1 min 38 s left"]


def test_time_left_follows_the_recent_rate(clock, caplog):
    caplog.set_level(logging.INFO)
    progress = Progress("prior", 1000, clock=clock)
    run(clock, progress, range(1, 201), 1.0)
    run(clock, progress, range(201, 901), 0.1)
    assert caplog.messages[-1].endswith("left")
    caplog.clear()
    run(clock, progress, range(901, 990), 0.1)
    left = caplog.messages[-1].split(", ")[-1]
    assert int(left.split()[0]) <= 12


def test_no_rate_yet(clock, caplog):
    caplog.set_level(logging.INFO)
    progress = Progress("prior", 10, start=5, clock=clock)
    clock.now += 30
    progress.update(5)
    assert caplog.messages == ["prior: 5/10 steps (50 %), time left unknown"]


def test_last_line_says_how_long_it_took(caplog):
    caplog.set_level(logging.INFO)
    Progress("fields", 5, start=2).finish()
    assert caplog.messages == ["fields: 5/5 steps (100 %), took 0 s"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.6, "1 min 0 s"), (80, "1 min 20 s"), (7500, "2 h 5 min"), (90000, "1 d 1 h")],
)
def test_format_seconds(seconds, text):
    assert format_seconds(seconds) == text
