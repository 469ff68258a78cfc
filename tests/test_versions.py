"""Small results of every kind, against stored ones: what moved must have another version. So must a kind whose defaults changed.

`python tests/test_versions.py` stores those of today, with today's versions, in versions.json and defaults.json.
"""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from outside import Screened

from ddis import versions
from ddis.config import Case, Study
from ddis.data.store import read_pairs, read_samples
from ddis.data.subsets import paired_subset
from ddis.inputs import versions_of
from ddis.models.checkpoint import load_tensors
from ddis.observe import KINDS, load_kind
from ddis.pde import PROBLEMS, make_problem
from ddis.sampling.methods import METHODS
from ddis.stages import generate, sample, tables, train
from ddis.stages.layout import data_path, model_folder, models, samples_path
from ddis.steps import flat

STORED = Path(__file__).with_name("versions.json")
DEFAULTS = Path(__file__).with_name("defaults.json")
BACKBONE = {"channels": [8, 8], "blocks": [1, 1], "embedding": 8}
NETWORK = {"backbone": {**BACKBONE, "group": 1}, "training": {"steps": 4, "batch": 8}}
GROUPS = {**NETWORK, "backbone": BACKBONE}
LEVELS = {"channels": [4, 8], "blocks": [1, 1], "group": 1}
UNO = {**NETWORK, "backbone": {"name": "uno", **LEVELS, "modes": 4, "rank": 0.5, "attention": [1]}}
RUNS = {
    "ddis": {"steps": 3, "langevin_steps": 2, "weight": 1},
    "ddis-gn": {"samples": 2, "steps": 3},
    "ddis-dps": {"steps": 3, "weight": 1},
    "fundps": {"steps": 4, "weight": 10},
    "diffusionpde": {"steps": 4, "weight": 1},
    "joint-daps": {"steps": 3, "langevin_steps": 2, "weight": 1},
    "exact": {"samples": 2},
    "prior-mean": {"samples": 1},
    "tikhonov": {"samples": 1},
    "es-mda": {"samples": 8},
    "eci": {"steps": 4, "mix": 2},
    "ofm": {"steps": 4, "ode_steps": 2},
}
STUDY = {
    "study": "versions",
    "device": "cpu",
    "problems": {"poisson": {"pde": "poisson"}},
    "data": {"resolution": 16, "train": 32, "validation": 8, "test": 2},
    "fractions": [1.0],
    "observations": {"sparse": {"count": 20, "noise": 0.01}},
    "prior": NETWORK,
    "joint": NETWORK,
    "flow": NETWORK,
    "operator": {"network": {"modes": 4, "width": 4, "layers": 2}, "training": {"steps": 4, "batch": 8}},
    "operators": {
        "physics": {"physics": {"pde": 0.1, "boundary": 10}},
        "unet": {"network": {"architecture": "unet", "channels": [4, 8], "blocks": [1, 1]}},
        "uno": {"network": {"architecture": "uno", "modes": 4, "width": 4, "levels": 2}},
    },
    "runs": RUNS,
}
# Of the norm of an array. float32 rounds to 6e-8, and solvers and transforms of 16 x 16 nodes add some tens of that. Adam divides
# by the size of a gradient, and samplers iterate, which makes round-off larger; a change of the method moves results by percents.
TOLERANCE = {"problem": 2e-5, "generate": 2e-5, "pairs": 0, "train": 1e-3, "sample": 5e-3, "tables": 5e-3}
SCORES = ["l2_sample", "l2_mean", "spectral", "crps", "misfit", "coverage90"]


def numbers(*arrays: Any) -> list[float]:
    """Of each array its norm and three of its values, away from boundaries."""
    flat = [np.asarray(array, np.float64).ravel() for array in arrays]
    return [float(v) for a in flat for v in (np.linalg.norm(a), *(a[int(part * len(a))] for part in (0.214, 0.468, 0.837)))]


def trained(study: Study, model: str) -> tuple[str, dict[str, Any], list[float]]:
    """Name, versions and numbers of a network that it trains."""
    train.run(study, "poisson", model)
    tensors, _ = load_tensors(model_folder(study, "poisson", model) / "weights.safetensors")
    weights = np.concatenate([np.ravel(value).view(np.float32) for _, value in sorted(tensors.items())])  # some are complex
    return f"train {model}", versions_of(study, "train", problem="poisson", model=model), numbers(weights)


def results() -> Iterator[tuple[str, dict[str, Any], list[float]]]:
    """Name, versions and numbers of each small result; written into the working directory."""
    study = Study.load(STUDY)
    for problem, number in versions.PROBLEMS.items():
        solver = make_problem(problem, {})
        coefficient = solver.sample_coefficients(range(4), 16, seed=0)
        yield f"problem {problem}", {problem: number}, numbers(coefficient, solver.solve(coefficient))
    for split in ("train", "validation", "test"):
        generate.run(study, "poisson", split)
    pairs = read_pairs(data_path(study, "poisson", "train"))
    made = versions_of(study, "generate", problem="poisson", split="train")
    yield "generate", made, numbers(pairs.coefficient, pairs.solution)
    yield "pairs", versions_of(study, "pairs"), numbers(paired_subset(0.1, 1000, 0))
    for model in [*models(study, "poisson"), *(f"operator-{name}-100" for name in study.operators)]:
        yield trained(study, model)
    for kind, prior in {"uno": UNO, "groups": GROUPS, "wiener": {**NETWORK, "preconditioning": "wiener"}}.items():
        other = Study.load({**STUDY, "study": f"prior-{kind}", "prior": prior})
        for split in ("train", "validation"):
            generate.run(other, "poisson", split)
        name, made, found = trained(other, "prior")
        yield f"{name} {kind}", made, found
    for run in RUNS:
        case = Case("poisson", "sparse", run, "100")
        sample.run(study, **vars(case))
        drawn = read_samples(samples_path(study, **vars(case)))
        yield f"sample {run}", versions_of(study, "sample", **vars(case)), numbers(drawn.coefficient, drawn.mean)
    tables.run(study)
    errors = pd.read_csv(study.folder / "tables" / "errors.csv", index_col="run")
    scores = [numbers(errors.loc[run, SCORES].dropna()) for run in RUNS]
    yield "tables", versions_of(study, "tables"), [value for four in scores for value in four]


def defaults() -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Name, versions and settings at their defaults of each kind of result, of a study that sets nothing that has a default."""
    runs = {run: {"weight": 1} if "weight" in values else {} for run, values in RUNS.items()}
    study = Study.load({key: STUDY[key] for key in ("study", "data", "fractions", "problems", "observations")} | {"runs": runs})
    kinds = {f"problem {name}": ({name: number}, PROBLEMS.load(name).Parameters) for name, number in versions.PROBLEMS.items()}
    kinds |= {f"observe {name}": ({"sample": versions.STAGES["sample"]}, load_kind(name).Settings) for name in KINDS.names()}
    for name, (made, settings) in kinds.items():
        fields = settings.model_fields.items()
        yield name, made, {key: field.default for key, field in fields if not field.is_required()}
    cases = {f"sample {run}": ("sample", vars(Case("poisson", "sparse", run, "100"))) for run in RUNS}
    for name, (stage, what) in {
        **{f"train {model}": ("train", {"problem": "poisson", "model": model}) for model in models(study, "poisson")},
        **cases,
    }.items():
        chosen = dict(flat(study.chosen(stage, **what)))
        found = {key: value for key, value in flat(study.inputs(stage, **what)) if key not in chosen}
        yield (
            name,
            versions_of(study, stage, **what),
            {k: v for k, v in found.items() if k.partition(".")[0] in ("settings", "noise")},
        )


@pytest.fixture(scope="module")
def today(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[dict[str, Any], list[float]]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("versions"))
        patch.setenv("DDIS_TRACKING", "off")
        return {name: (made, found) for name, made, found in results()}


def moved(name: str, before: list[float], now: list[float]) -> bool:
    """Whether results differ by more than the tolerance; each four numbers are a norm and three values."""
    blocks = np.array(before).reshape(-1, 4), np.array(now).reshape(-1, 4)
    if blocks[0].shape != blocks[1].shape:
        return True
    tolerance = TOLERANCE[name.split()[0]]
    return bool((np.abs(blocks[0] - blocks[1]) > tolerance * np.abs(blocks[0][:, :1])).any())


def test_what_moved_has_another_version(today):
    stored = json.loads(STORED.read_text())
    assert set(stored) == set(today)
    for name, (made, found) in today.items():
        if moved(name, stored[name]["numbers"], found):
            assert made != stored[name]["version"], f"results of {name} moved: raise one of {list(made)} in ddis/versions.py"
            raise AssertionError(f"results of {name} moved, and so did its version: python {Path(__file__).name} stores them")
        assert made == stored[name]["version"], f"the version of {name} was raised: python {Path(__file__).name} stores it"


def test_a_default_that_changed_has_another_version():
    """A digest holds what is not at its default: it would not see the change, and old results would be taken for new ones."""
    stored = json.loads(DEFAULTS.read_text())
    now = {name: {"version": made, "settings": json.loads(json.dumps(found))} for name, made, found in defaults()}
    for name in stored.keys() & now.keys():
        before, after = stored[name]["settings"], now[name]["settings"]
        if other := [key for key in before.keys() & after.keys() if before[key] != after[key]]:
            text = f"defaults of {name} changed, {other}: raise one of {list(now[name]['version'])} in ddis/versions.py"
            assert now[name]["version"] != stored[name]["version"], text
    assert now == stored, f"a setting is new or gone, or a version was raised: python {Path(__file__).name} stores what is now"


def test_a_moved_result_is_seen(today):
    made, found = today["train prior"]
    assert not moved("train prior", found, [value * (1 + 1e-4) for value in found])
    assert moved("train prior", found, [value * (1 + 3e-3) for value in found]), made


def test_what_has_a_version_is_in_the_package():
    """What has none counts by the content of its file."""
    assert set(versions.PROBLEMS) <= set(PROBLEMS.builtin) and set(versions.METHODS) == set(RUNS) <= set(METHODS.builtin)
    assert set(versions.STAGES) - {"import"} <= {path.stem for path in Path(generate.__file__).parent.glob("*.py")}
    own = versions.version(versions.PROBLEMS, "outside:Screened", Screened)
    assert own == versions.version({}, "another:Name", Screened) and len(str(own)) == 16


if __name__ == "__main__":
    os.environ["DDIS_TRACKING"] = "off"
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        content = {name: {"version": made, "numbers": found} for name, made, found in results()}
    STORED.write_text(json.dumps(content, indent=1) + "\n")
    found = {name: {"version": made, "settings": settings} for name, made, settings in defaults()}
    DEFAULTS.write_text(json.dumps(found, indent=1) + "\n")
