"""Lines, rectangles, masked domains and several channels through every stage of one tiny study, in this process."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from stages import run_all

from ddis.cli import main
from ddis.config import Study
from ddis.data.observations import read_observations
from ddis.data.store import Samples, read_pairs, read_samples
from ddis.errors import InputError
from ddis.evaluation import metrics
from ddis.evaluation.table import from_csv
from ddis.pde import problem as problem_of
from ddis.pde.base import Problem
from ddis.stages.layout import data_path, figure_names, samples_path
from ddis.stages.solve import solve
from ddis.stages.study import run as write_configuration

CONFIGURED: dict[str, dict[str, Any]] = {
    "burgers": {"pde": "burgers", "time": 0.25},
    "source": {"pde": "darcy-source"},
    "corner": {"pde": "poisson-l-shape"},
    "channel": {"pde": "poisson", "aspect": 3},
}
PROBLEMS = ("burgers", "source", "corner", "channel")
LINEAR, JOINT = ("corner", "channel"), ("source", "corner", "channel")
NODES, NOISE, K = 30, 0.01, 4
BACKBONE = {"channels": [8, 8], "blocks": [1, 1], "embedding": 8}
TRAINING = {"steps": 12, "batch": 8, "validate_every": 4}
CONFIGURATION: dict[str, Any] = {
    "study": "spaces",
    "device": "cpu",
    "problems": CONFIGURED,
    "data": {"resolution": 16, "train": 48, "validation": 12, "test": 2},
    "fractions": [1.0],
    "observations": {"sparse": {"count": NODES, "noise": NOISE}},
    "prior": {"backbone": BACKBONE, "training": TRAINING},
    "joint": {"backbone": BACKBONE, "training": TRAINING},
    "operator": {"network": {"modes": 4, "width": 4, "layers": 2}, "training": TRAINING},
    "runs": {
        "ddis": {"steps": 3, "langevin_steps": 2, "weight": 1},
        "ddis-gn": {"samples": 2, "steps": 3},
        "solver": {"method": "ddis-gn", "operator": "solver", "samples": K, "steps": 2},
        "tikhonov": {"operator": "solver", "samples": K, "iterations": 2, "problems": LINEAR},
        "fundps": {"steps": 4, "weight": 10, "residual_weight": 0.01, "problems": JOINT},
        "joint-daps": {"steps": 3, "langevin_steps": 2, "weight": 1, "problems": JOINT},
        "exact": {"samples": K, "problems": LINEAR},
        "prior-mean": None,
    },
}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The finished study, with its folder as the working directory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("spaces"))
        made = Study.load(CONFIGURATION)
        run_all(made)
        yield made


def samples(study: Study, problem: str, run: str) -> Samples:
    return read_samples(samples_path(study, problem, "sparse", run, "100"))


def test_every_stage_has_written_its_files(study: Study) -> None:
    rows = pd.DataFrame(from_csv(study.folder / "tables" / "errors.csv")).set_index(["problem", "run"])
    assert sorted(rows.index) == sorted((case.problem, case.run) for case in study.cases()) and len(rows) == 26
    assert (rows["n_failed"] == 0).all() and rows["l2_sample"].notna().all() and rows["misfit"].notna().all()
    assert rows["l2_limit"].notna().groupby("problem").all().to_dict() == {p: p in LINEAR for p in PROBLEMS}
    for name in figure_names(study):
        assert (study.folder / "figures" / name).stat().st_size > 1000, name
    assert (study.folder / "report.html").stat().st_size > 1e5
    cards = {p: yaml.safe_load((study.folder / "data" / p / "card.yaml").read_text(encoding="utf-8")) for p in PROBLEMS}
    assert cards["channel"]["domain"] == "[0, 3] x [0, 1]" and cards["channel"]["grid"].startswith(
        "48 x 16 nodes, spacing 3/47, 1/15"
    )
    assert cards["corner"]["domain"] == "unit square, 81% of it"
    assert cards["burgers"]["axes"] == "[n, i] is x = i * 1/16; [n, i, j] is x = i * 1/16, t = j * 0.25/16"


@pytest.mark.parametrize("problem", PROBLEMS)
def test_samples_have_the_shapes_of_their_spaces_and_truths_are_those_of_the_test_split(study: Study, problem: str) -> None:
    made, stored = study.make_problem(problem), read_pairs(data_path(study, problem, "test"))
    a, u = made.spaces(16)
    drawn = samples(study, problem, "solver")
    assert drawn.coefficient.shape == (2, K, *a.shape) and drawn.mask.shape == (2, *u.shape)
    assert np.array_equal(drawn.coefficient_true, stored.coefficient) and np.array_equal(drawn.solution_true, stored.solution)
    for found, expected in zip(drawn.spaces, (a, u), strict=True):
        assert found.describe() == expected.describe()
        assert np.array_equal(found.grid.nodes, expected.grid.nodes)
    assert drawn.mask.sum() == 2 * NODES and drawn.mask[:, u.grid.interior].sum() == 2 * NODES
    expected = made.solve(torch.from_numpy(drawn.coefficient.reshape(-1, *a.shape)).double()).numpy()
    assert np.abs(drawn.solution.reshape(expected.shape) - expected).max() < 1e-5 * np.abs(expected).max()


FITTED = [(problem, "solver") for problem in PROBLEMS] + [(problem, "tikhonov") for problem in LINEAR]


@pytest.mark.parametrize(("problem", "run"), FITTED)
def test_gauss_newton_with_the_solver_fits_the_observations(study: Study, problem: str, run: str) -> None:
    """Against coefficients that know nothing of the observations; of linear problems to the noise."""
    made, drawn = study.make_problem(problem), samples(study, problem, run)
    scale = float(drawn.attributes["solution_std"])
    draws = made.solve(made.sample_coefficients(range(32), 16, seed=77)).numpy()[None].repeat(2, 0)
    own, other = (metrics.misfit(u, drawn.observation, drawn.mask, scale) for u in (drawn.solution, draws))
    assert own.mean() < 0.15 * other.mean() and (problem not in LINEAR or own.mean() < 1.5 * NOISE), (own, other.mean())


@pytest.mark.parametrize("problem", LINEAR)
def test_exact_is_the_limit(study: Study, problem: str) -> None:
    rows = pd.DataFrame(from_csv(study.folder / "tables" / "errors.csv")).set_index(["problem", "run"])
    exact, prior = rows.loc[(problem, "exact")], rows.loc[(problem, "prior-mean")]
    # Of two fields the mean of four samples may by chance be nearer than the closed form.
    assert 0.7 < exact["l2_mean"] / exact["l2_limit"] < 1.4 and exact["l2_limit"] < 0.8 * prior["l2_sample"]
    assert exact["misfit"] == pytest.approx(NOISE, rel=0.4)


@pytest.mark.parametrize("run", ["ddis", "ddis-gn", "solver", "fundps", "joint-daps", "exact", "tikhonov", "prior-mean"])
def test_l_shaped_samples_are_zero_outside_the_domain_and_nowhere_else(study: Study, run: str) -> None:
    drawn = samples(study, "corner", run)
    inside = study.make_problem("corner").coefficient_space(16).grid.nodes
    assert np.array_equal(drawn.domain, inside)
    assert (drawn.coefficient[..., ~inside] == 0).all() and (drawn.coefficient[..., inside] != 0).all()


def test_both_channels_are_estimated_and_conductivities_are_positive(study: Study) -> None:
    drawn = samples(study, "source", "solver")
    assert (drawn.coefficient[:, :, 0] > 0).all()
    prior = samples(study, "source", "prior-mean").coefficient
    for channel in (0, 1):
        assert (drawn.coefficient[:, :, channel] != prior[:, :, channel]).all()


def test_what_a_problem_cannot_do_is_refused_before_any_work(study: Study) -> None:
    for run, settings in (("fundps", {"steps": 4}), ("ddis", {"steps": 4, "start_resolution": 8, "upsample_at": 2})):
        problems = {"burgers": {"pde": "burgers"}}
        with pytest.raises(InputError, match=rf"runs\.{run}.*accepted|runs\.{run}.*same nodes"):
            Study.load({**CONFIGURATION, "problems": problems, "runs": {run: settings}})
    with pytest.raises(InputError, match="accepted: 1 to 272"):
        Study.load({**CONFIGURATION, "problems": problems, "runs": {"prior-mean": None}, "observations": {"x": {"count": 273}}})


# `ddis solve`

VALUE_NOISE = 0.01


def measured(problem: str, count: int = 25) -> tuple[Problem, np.ndarray, pd.DataFrame]:
    """A problem, a true coefficient of it, and its solution at nodes with noise, as a table."""
    made = problem_of(**CONFIGURED[problem], resolution=16)
    a = made.sample_coefficients([5], 16, 9)
    solution, grid, rng = made.solve(a)[0].numpy(), made.solution_space(16).grid, np.random.default_rng(3)
    index = np.unravel_index(rng.choice(np.flatnonzero(grid.interior), count, replace=False), grid.shape)
    noise = VALUE_NOISE * solution.std()
    rows = {name: axis[i] for name, axis, i in zip(grid.axes, grid.coordinates(), index, strict=True)}
    return (
        made,
        a[0].numpy(),
        pd.DataFrame({**rows, "value": solution[index] + noise * rng.standard_normal(count), "noise": noise}),
    )


def command(study: Study, problem: str, rows: pd.DataFrame, output: Path, run: str = "solver") -> list[str]:
    rows.to_csv(output.with_suffix(".csv"), index=False)
    given = {"--model": study.folder / "models" / problem, "--observations": output.with_suffix(".csv"), "--output": output}
    fixed = {"--percent": 100, "--samples": 4, "--method": run}
    return ["solve", *(str(word) for pair in (given | fixed).items() for word in pair)]


@pytest.mark.parametrize("problem", PROBLEMS)
def test_solve_on_every_space(study: Study, problem: str, tmp_path: Path) -> None:
    """Samples fit the values, lie in the coefficient's space, and predict what the solver gives at the nodes."""
    made, _, rows = measured(problem)
    (study.folder / "models" / problem).mkdir(parents=True, exist_ok=True)
    write_configuration(study)
    assert main(command(study, problem, rows, tmp_path / "out.h5")) == 0
    a, u = made.spaces(16)
    with h5py.File(tmp_path / "out.h5") as file:
        shapes = {name: file[name].shape for name in file}
        samples, predicted = file["samples"][...], file["predicted"][...]
    axes = {name: (size,) for name, size in zip(a.grid.axes, a.grid.shape, strict=True)}
    expected = {"mean": a.shape, "std": a.shape, "samples": (4, *a.shape), "predicted": (4, 25), **axes}
    assert shapes == expected | {"observations": (25, len(u.grid.shape) + 2)}
    assert (tmp_path / "out.png").stat().st_size > 10_000
    assert (samples[..., ~a.grid.nodes] == 0).all()
    places = [np.round(rows[name] / step).astype(int) for name, step in zip(u.grid.axes, u.grid.spacing, strict=True)]
    solved = made.solve(torch.from_numpy(samples).double()).numpy()[:, *places]
    assert np.abs(predicted - solved).max() < 1e-4 * np.abs(solved).max()
    assert np.abs(predicted - rows["value"].to_numpy()).mean() < 0.6 * rows["value"].abs().mean()


@pytest.mark.parametrize("problem", ["burgers", "source"])
def test_solve_with_values_of_the_coefficient(study: Study, problem: str, tmp_path: Path) -> None:
    """Of the initial condition, whose rows have no time; and of the second channel."""
    _, truth, rows = measured(problem)
    write_configuration(study)
    if problem == "burgers":
        own = pd.DataFrame({"x": np.arange(0, 16, 3) / 16, "value": truth[::3]})
        at = np.s_[:, ::3]
    else:
        own = pd.DataFrame({"x": [0.2, 0.8, 0.4], "y": [0.4, 0.2, 0.8], "value": truth[1, [3, 12, 6], [6, 3, 12]], "channel": 1})
        at = np.s_[:, 1, [3, 12, 6], [6, 3, 12]]
    both = pd.concat([own.assign(of="coefficient", noise=0.02), rows]).sample(frac=1, random_state=1, ignore_index=True)
    found = solve(study.folder / "models" / problem, both, percent=100, samples=4, method="solver")
    mine = (both["of"] == "coefficient").to_numpy()
    assert np.array_equal(found.observations.of, mine) and found.predicted.shape == (4, len(both))
    expected, values = found.samples[at], both.loc[mine, "value"].to_numpy()
    order = [own["value"].tolist().index(value) for value in values]
    assert np.allclose(found.predicted[:, mine], expected[:, order], atol=1e-4)
    assert np.abs(found.predicted[:, mine] - values).mean() < 0.25  # of a standard deviation of 0.6
    found.save(tmp_path / "out.h5")
    with h5py.File(tmp_path / "out.h5") as file:
        assert np.array_equal(file["of"], mine) and ("channel" in file) == (problem == "source")
        assert np.isnan(file["observations"][...]).sum() == (len(own) if problem == "burgers" else 0)


@pytest.mark.parametrize(
    ("problem", "text", "message"),
    [
        ("burgers", "x,y,value\n0.5,0.5,1\n", r"columns x, y, value; accepted: x, t, value, and optionally noise and of"),
        ("burgers", "x,value\n0.5,1\n", r"columns x, value; accepted: x, t, value"),
        (
            "burgers",
            "x,t,value\n0.5,0.1,1\n0.5,0.3,1\n",
            r"line 3: point \(0\.5, 0\.3\) is outside .*x from 0 to 1, t from 0 to 0\.25",
        ),
        ("burgers", "x,t,value\n0.5,,1\n", r"line 2: t is empty; accepted: a finite number"),
        ("burgers", "x,t,value,of\n0.5,0.1,1,coefficient\n", r"line 2: t is 0\.1; accepted: empty, as the coefficient has no t"),
        ("channel", "x,y,value\n3.5,0.5,1\n", r"point \(3\.5, 0\.5\) is outside the domain .*x from 0 to 3, y from 0 to 1"),
        ("corner", "x,y,value\n0.9,0.9,1\n", r"point \(0\.9, 0\.9\) is outside the domain .*between nodes of the domain"),
        (
            "source",
            "x,y,value,of,channel\n0.5,0.5,1,coefficient,2\n",
            r"line 2: channel is 2; accepted for the coefficient: 0 to 1",
        ),
        ("source", "x,y,value,channel\n0.5,0.5,1,1\n", r"line 2: channel is 1; accepted for the solution: 0 \(or empty\)"),
        ("channel", "x,y,value,channel\n0.5,0.5,1,0\n", r"columns x, y, value, channel; accepted: x, y, value"),
    ],
)
def test_observations_that_are_in_no_field_are_refused(problem: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "points.csv").write_text(text)
    with pytest.raises(InputError, match=message) as refused:
        read_observations(tmp_path / "points.csv", problem_of(**CONFIGURED[problem], resolution=16).spaces(16))
    assert "\n" not in str(refused.value)


def test_a_mask_of_the_solutions_space() -> None:
    spaces = problem_of(**CONFIGURED["burgers"], resolution=16).spaces(16)
    mask, field = np.zeros(spaces[1].shape, dtype=bool), np.ones(spaces[1].shape)
    mask[3, 16] = True
    assert read_observations((mask, field), spaces).table().tolist() == [[3 / 16, 0.25, 1, 0]]
    with pytest.raises(InputError, match=r"accepted: mask and solution, both \(16, 17\)"):
        read_observations((mask[:, 1:], field[:, 1:]), spaces)
