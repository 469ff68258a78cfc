"""Sampling in parts: the same fields in the same batches, the same bytes, costs that add up; and what jobs ask a cluster for."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from ddis.config import Case, Study
from ddis.data.store import Samples, read_samples
from ddis.errors import InputError
from ddis.grid import square
from ddis.sampling.base import Batch, Method, State
from ddis.stages import draw, generate, needs, sample
from ddis.stages.layout import samples_path
from ddis.stages.sampler import Sampler, observe

ROOT = Path(__file__).parents[1]


def study(**changes: Any) -> Study:
    content = yaml.safe_load((ROOT / "tests" / "tiny.yaml").read_text())
    return Study.load({key: value for key, value in (content | changes).items() if value is not None})


# 7 fields in batches of 2: 4 batches.
CASE = Case("poisson", "sparse", "exact", "100")
SETTINGS = {"data": {"resolution": 16, "train": 32, "validation": 4, "test": 7}, "runs": {"exact": {"samples": 4, "batch": 8}}}


@pytest.mark.parametrize(
    ("shards", "expected"),
    [
        (1, [range(0, 7)]),
        (2, [range(0, 4), range(4, 7)]),
        (3, [range(0, 2), range(2, 4), range(4, 7)]),
        (9, [range(0, 2), range(2, 4), range(4, 6), range(6, 7)]),
    ],
)
def test_shards_are_whole_batches(shards: int, expected: list[range]) -> None:
    assert study(**SETTINGS, tuning=None, shards=shards).shards_of(CASE) == expected


def test_samples_and_evaluations_do_not_depend_on_the_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found: dict[int, Samples] = {}
    for shards in (1, 3):
        made = study(**SETTINGS, tuning=None, shards=shards, study=f"in-{shards}")
        for split in ("train", "test"):
            generate.run(made, "poisson", split)
        for shard in reversed(range(shards)):  # in any order
            draw.run(made, **vars(CASE), shard=str(shard))
            assert not samples_path(made, **vars(CASE)).exists()
        sample.run(made, **vars(CASE))
        found[shards] = read_samples(samples_path(made, **vars(CASE)))
        assert not list((made.folder / "work").rglob("*.safetensors"))
    whole, parts = found[1], found[3]
    assert whole.attributes["digest"] == parts.attributes["digest"]
    # A row of the Jacobian costs the solver and its gradient: 2 at each node that any of the fields observes.
    nodes = int(whole.mask.any(axis=0).sum())
    assert whole.attributes["operator_evaluations"] == parts.attributes["operator_evaluations"] == 2 * nodes / (7 * 4)
    assert parts.attributes["seconds_per_field"] > 0


def counted(method: Method[Any], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The chains of every batch that the method is going to draw."""
    asked: list[int] = []

    def sample(batch: Batch, prepared: Any) -> Iterator[State]:
        asked.append(len(batch.generators))
        yield from type(method).sample(method, batch, prepared)

    monkeypatch.setattr(method, "sample", sample)
    return asked


@pytest.mark.parametrize(("method", "expected"), [("exact", [2, 3, 3]), ("es-mda", [8])])
def test_a_batch_bounds_the_chains_of_one_field(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, expected: list[int]
) -> None:
    """8 samples of a field in batches of at most 3 chains: the same samples to rounding. An ensemble is not split."""
    monkeypatch.chdir(tmp_path)
    found, together = [], []
    for batch in (8, 3):
        run = {"method": method, "samples": 8, "batch": batch, "operator": "solver"}
        made = study(**SETTINGS | {"runs": {"run": run}}, tuning=None, study=f"of-{batch}")
        for split in ("train", "test"):
            generate.run(made, "poisson", split)
        case = Case("poisson", "sparse", "run", "100")
        sampler = Sampler(made, case, made.run_for(case))
        asked = counted(sampler.method, monkeypatch)
        observed = observe(made, case, "test", np.arange(2))
        sampler.draw(observed, "test", tmp_path / made.study, range(2))
        found.append(sampler.collect(observed, tmp_path / made.study))
        together.append(asked)
    assert together == [[8, 8], 2 * expected]
    whole, parts = found
    assert parts.coefficient.shape == whole.coefficient.shape == (2, 8, 16, 16)
    assert np.allclose(parts.coefficient, whole.coefficient, rtol=0, atol=1e-5 * whole.coefficient.std())
    assert parts.operator_evaluations == whole.operator_evaluations
    if whole.mean is not None:
        assert np.array_equal(parts.mean, whole.mean) and np.array_equal(parts.std, whole.std)


def test_a_shard_that_is_missing_is_drawn_when_gathering(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = study(**SETTINGS, tuning=None, shards=3)
    for split in ("train", "test"):
        generate.run(made, "poisson", split)
    draw.run(made, **vars(CASE), shard="1")
    sample.run(made, **vars(CASE))
    assert np.isfinite(read_samples(samples_path(made, **vars(CASE))).coefficient).all()
    with pytest.raises(InputError, match="shard '3' is not in the study; accepted: 0 to 2"):
        draw.run(made, **vars(CASE), shard="3")


def test_what_a_job_asks_for_grows_with_the_study() -> None:
    small, large = Study.load(ROOT / "config" / "config.yaml"), Study.load(ROOT / "config" / "paper.yaml")
    case = vars(Case("poisson", "sparse", "ddis", "100"))
    for stage, what in {
        "generate": {"problem": "poisson", "split": "train"},
        "train": {"problem": "poisson", "model": "prior"},
        "sample": case,
        "draw": {**case, "shard": "0"},
        "figures": {},
    }.items():
        assert needs.memory_mb(small, stage, **what) < needs.memory_mb(large, stage, **what) < 100_000, stage
        assert needs.minutes(small, stage, **what) < needs.minutes(large, stage, **what) <= needs.LONGEST_MINUTES, stage
    split = large.model_copy(update={"shards": 16})
    assert needs.minutes(split, "draw", **case, shard="0") < needs.minutes(large, "draw", **case, shard="0")
    assert needs.memory_mb(small, "train", problem="poisson", model="prior") < needs.memory_mb(
        small.model_copy(update={"device": "cpu"}), "train", problem="poisson", model="prior"
    )


def test_flops_of_the_backbone_are_those_of_its_convolutions() -> None:
    """Against torch's own count of the U-Net's convolutions, within a factor of 2: the formula leaves out the smaller parts."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    settings = Study.load(ROOT / "config" / "config.yaml").prior.backbone
    network = settings.build(1, square(16))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 1, 32, 32), torch.ones(1))
    assert 0.5 < settings.flops(32) / counter.get_total_flops() < 2
