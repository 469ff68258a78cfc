"""`ddis solve` and `ddis.solve`: interpolation, the posterior of points between nodes, input that is refused, and docs/solve.md.

Networks are those of the tiny study, which learn nothing in 12 steps; what must be right about the posterior is tested with the
closed form (`exact`) and with the solver as operator. Seeds are stated where used.
"""

import logging
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from batches import last_state, make_batch

import ddis
from ddis.cli import main
from ddis.config import Study
from ddis.data.observations import read_observations
from ddis.errors import InputError
from ddis.fields.bases import basis
from ddis.fields.noise import WhiteNoise
from ddis.grid import Space, square
from ddis.models.normalisation import Normalisation
from ddis.observe import Sensors
from ddis.observe.nodes import Nodes, draw_nodes
from ddis.observe.points import Points, interpolation, interpolation_variance
from ddis.operators.error import OperatorError
from ddis.operators.solver import Solver, or_nan
from ddis.pde import make_problem
from ddis.priors import gaussian
from ddis.randomness import generator
from ddis.sampling.base import Batch, Method, State
from ddis.sampling.gauss_newton import SharedJacobian
from ddis.stages import generate, train
from ddis.stages.solve import report_weights, threads

ROOT = Path(__file__).parents[1]
SIZE = 16
PLAIN = (Space(square(SIZE)),) * 2
sys.path += [str(ROOT / "docs" / "solve"), str(ROOT / "docs")]


@pytest.fixture(scope="module")
def example() -> Iterator[ModuleType]:
    """docs/solve/example.py, with the resolution of the tiny study."""
    import example as module

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SIZE", SIZE)
        yield module


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """results/tiny of a study with networks for 10 and 100 % of the pairs, in the working directory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("solve"))
        patch.setenv("DDIS_TRACKING", "off")
        content = yaml.safe_load((ROOT / "tests" / "tiny.yaml").read_text())
        content["problems"] = {
            "poisson": {"pde": "poisson"},
            "helmholtz": {"pde": "helmholtz"},
            "darcy": {"pde": "darcy"},
            "navier-stokes": {"pde": "navier-stokes"},
        }
        content["runs"] |= {
            "exact": {"problems": ["poisson", "helmholtz"]},
            "kriging": {"method": "tikhonov", "operator": "solver"},
            "failing": {"method": "test_solve:Failing"},
            "guided": {"method": "fundps", "weight": 10, "steps": 20},
            "unguided": {"method": "fundps", "weight": 0, "steps": 20},
        }
        study = Study.load(content)
        (study.folder).mkdir(parents=True)
        (study.folder / "config.yaml").write_text(yaml.safe_dump(study.resolved()))
        for problem in study.problems:
            for split in ("train", "validation"):
                generate.run(study, problem, split)
        for model in ("prior", "operator-10", "operator-100", "joint-100"):
            train.run(study, "poisson", model)
        for problem in ("helmholtz", "darcy", "navier-stokes"):  # kriging through the solver needs no network
            (study.folder / "models" / problem).mkdir(parents=True)
        yield study.folder


class Failing(Method):
    """Draws white noise; every other chain is NaN, and all are where the first value is negative."""

    prior = None

    def sample(self, batch: Batch, prepared: None) -> Iterator[State]:
        x0 = batch.draw_white(*batch.shape).float()
        negative = bool((batch.observation.misfit(torch.zeros(1, 1)) > 0).any())
        x0[1 :: 1 if negative else 2] = torch.nan
        yield State(1, 1, 0.0, x0)


def points(count: int, seed: int = 5) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.random.default_rng(seed).uniform(0.02, 0.98, (2, count))
    return x, y


# Interpolation


@pytest.mark.parametrize("periodic", [False, True])
def test_interpolation_is_exact_for_bilinear_fields_and_at_nodes(periodic: bool):
    side = SIZE if periodic else SIZE - 1
    node = np.arange(SIZE) / side
    field = torch.from_numpy(1 + 2 * node[:, None] - 3 * node[None, :] + 5 * node[:, None] * node[None, :])[None]
    x, y = points(200)
    inside = (x <= node[-1]) & (y <= node[-1])  # beyond, a periodic field goes back to its first node
    found = interpolation(np.stack([x, y], axis=1), square(SIZE, periodic))(field.flatten(1))[0].numpy()
    assert np.allclose(found[inside], (1 + 2 * x - 3 * y + 5 * x * y)[inside], atol=1e-12)
    places = interpolation(np.stack([np.repeat(node, SIZE), np.tile(node, SIZE)], axis=1), square(SIZE, periodic))
    assert torch.equal(places(field.flatten(1))[0], field.flatten())


def test_interpolation_on_a_periodic_domain_ends_at_the_first_node():
    field = torch.zeros(1, SIZE, SIZE, dtype=torch.float64)
    field[0, 0, 3], field[0, -1, 3] = 1.0, 3.0
    places = interpolation(np.array([[1.0, 3 / SIZE], [(SIZE - 0.75) / SIZE, 3 / SIZE]]), square(SIZE, True))
    assert places(field.flatten(1))[0].tolist() == pytest.approx([1.0, 0.75 * 3 + 0.25 * 1])


def test_the_error_of_interpolation_is_estimated(example):
    """64 solutions, 400 points: the true error, against the sine series, and its estimate agree within 15 % on average."""
    problem = make_problem("poisson", {})
    solutions = problem.solve(problem.sample_coefficients(range(64), SIZE, 3))
    x, y = points(400)
    where = np.stack([x, y], axis=1)
    places = interpolation(where, square(SIZE))
    truth = np.stack([example.sine_series(u.numpy(), x, y) for u in solutions])
    error = ((places(solutions.flatten(1)).numpy() - truth) ** 2).mean(axis=0)
    estimate = interpolation_variance(where, square(SIZE), solutions).numpy()
    assert estimate.mean() == pytest.approx(error.mean(), rel=0.15)
    assert np.corrcoef(np.log(estimate), np.log(error))[0, 1] > 0.9
    assert interpolation_variance(np.array([[1 / 15, 2 / 15]]), square(SIZE), solutions) == 0


def of_sensors(sensors: Sensors, values: np.ndarray, chains: int) -> Batch:
    """Chains through the solver, whose error is a field of independent modes."""
    problem, modes = make_problem("poisson", {}, SIZE), basis("cosine", SIZE)
    solver = Solver(problem, Normalisation(0.0, 0.005))
    solver.error = OperatorError(modes, spectrum=torch.full((SIZE, SIZE), 1e-3, dtype=torch.float64))
    prior = gaussian(problem, WhiteNoise(), Normalisation(0.0, 0.5))
    return make_batch(problem, prior, solver, sensors, values, [generator(1, "chain", number) for number in range(chains)])


def test_points_at_nodes_are_the_nodes():
    """The same covariance and samples as an observation of the nodes; seed 4."""
    index = draw_nodes(square(SIZE), 12, 4, 0)
    values = 1e-3 * np.random.default_rng(4).standard_normal(12)
    row, column = (part / (SIZE - 1) for part in np.divmod(index, SIZE))
    nodes, same = (of_sensors(s, values, 3) for s in (Nodes(index, 1e-3), Points(np.stack([row, column], axis=1), 1e-3)))
    assert torch.allclose(nodes.observation.covariance, same.observation.covariance, atol=1e-12)
    samples = [last_state(batch, "tikhonov", samples=3).x0 for batch in (nodes, same)]
    assert torch.allclose(*samples, atol=1e-5)


def test_the_jacobian_at_a_point_is_the_mean_of_those_at_its_corners():
    where = np.stack(points(5), axis=1)
    places = interpolation(where, square(SIZE))
    at_points = of_sensors(Points(where), np.zeros(5), 1)
    rows = SharedJacobian(at_points)(at_points.observation.index)[0]
    whole = of_sensors(Nodes(np.arange(SIZE**2)), np.zeros(SIZE**2), 1)
    at_nodes = SharedJacobian(whole)(places.index)
    assert torch.allclose(rows, (at_nodes * places.weights[..., None]).sum(dim=1), atol=1e-5 * float(at_nodes.abs().max()))
    functions = places.of_basis(basis("cosine", SIZE), torch.arange(5)[None])[0]
    fields = torch.from_numpy(np.random.default_rng(1).standard_normal((SIZE, SIZE)))
    values = (functions * basis("cosine", SIZE).forward(fields).flatten()).sum(dim=1)
    assert torch.allclose(values, places(fields.flatten()[None])[0])


# The posterior


def observed(example: ModuleType, count: int, noise: float, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """A true coefficient [S, S], and rows x, y, value, noise of its solution; noise in units of the solution's deviation."""
    problem = make_problem("poisson", {})
    coefficient = problem.sample_coefficients([0], SIZE, seed)
    solution = problem.solve(coefficient)[0].numpy()
    x, y = points(count, seed)
    sigma = noise * solution.std()
    value = example.sine_series(solution, x, y) + sigma * np.random.default_rng(seed).standard_normal(count)
    return coefficient[0].numpy(), np.stack([x, y, value, np.full(count, sigma)], axis=1)


def test_the_exact_posterior_of_points_between_nodes_covers_the_truth(folder, example):
    """16 fields, 30 points, noiseless: 90 % intervals cover, and the misfit is explained, as it is not without that term."""
    from scipy import stats

    covered, ratios = [], []
    for seed in range(16):
        truth, rows = observed(example, 30, 0.0, seed)
        found = ddis.solve(folder / "models" / "poisson", rows, percent=100, method="exact", samples=8)
        width = stats.t.ppf(0.95, 7) * found.std * np.sqrt(1 + 1 / 8)
        covered.append(np.mean(np.abs(found.mean - truth) <= width))
        ratios.append(found.misfit.ratio)
        assert found.misfit.explained
    assert np.mean(covered) == pytest.approx(0.9, abs=0.03)
    assert min(ratios) > 0.8 and max(ratios) < 1.2


def test_a_misfit_that_noise_does_not_explain_is_reported(folder, example, tmp_path, caplog):
    """100 points with 30 % noise: as stated, stated as a tenth of it, and with one value of the wrong sign."""
    model, (_, rows) = folder / "models" / "poisson", observed(example, 100, 0.3)
    honest = ddis.solve(model, rows, percent=100, method="exact")
    assert honest.misfit.explained and honest.misfit.ratio == pytest.approx(1, abs=0.3)
    bold = rows * [1, 1, 1, 0.1]
    wrong = ddis.solve(model, bold, percent=100, method="exact")
    assert not wrong.misfit.explained and wrong.misfit.ratio > 2
    outlier = rows.copy()
    largest = int(np.abs(rows[:, 2]).argmax())
    outlier[largest, 2] *= -1
    found = ddis.solve(model, outlier, percent=100, method="exact")
    assert not found.misfit.explained and found.misfit.worst == largest
    pd.DataFrame(outlier, columns=["x", "y", "value", "noise"]).to_csv(tmp_path / "outlier.csv", index=False)
    assert main(solve_command(folder, tmp_path / "outlier.csv", tmp_path / "outlier.h5", "--method", "exact")) == 0
    assert re.search(r"warning: misfit is [\d.]+ times what noise explains \(chi-square \d+", caplog.text)
    assert f"Largest at ({rows[largest, 0]:g}, {rows[largest, 1]:g}): " in caplog.text


def solve_command(folder: Path, observations: Path, output: Path, *more: str, percent: str = "100") -> list[str]:
    model = folder / "models" / "poisson"
    fixed = ["solve", "--model", str(model), "--observations", str(observations), "--output", str(output)]
    return [*fixed, "--percent", percent, "--samples", "4", *more]


def test_constrained_coefficients_and_periodic_domains(folder):
    """Every sample is admissible: darcy within its two values, helmholtz zero on the boundary; navier-stokes near the seam."""
    rng = np.random.default_rng(2)
    rows = np.stack([*points(12), 1e-3 * rng.standard_normal(12)], axis=1)
    for problem in ("darcy", "helmholtz", "navier-stokes"):
        rows[0, :2] = (1.0, 0.99) if problem == "navier-stokes" else (0.5, 0.5)
        found = ddis.solve(folder / "models" / problem, rows, percent=100, method="kriging", samples=3)
        assert found.samples.shape == (3, SIZE, SIZE) and np.isfinite(found.samples).all()
        if problem == "darcy":
            assert found.samples.min() >= 3 and found.samples.max() <= 12
        if problem == "helmholtz":
            assert (found.samples[:, 0] == 0).all() and (found.samples[:, :, -1] == 0).all() and found.std[3, 3] > 0
        if problem == "navier-stokes":
            assert found.axes["x"][-1] == np.float32((SIZE - 1) / SIZE) and found.observations.places[0, 0] == 0


def test_almost_coincident_points_without_noise_are_no_singular_system(folder, example):
    _, rows = observed(example, 10, 0.0)
    rows = np.concatenate([rows, rows + np.array([1e-5, 0, 0, 0])])
    found = ddis.solve(folder / "models" / "poisson", rows, percent=100, method="exact")
    assert np.isfinite(found.samples).all() and found.misfit.explained


def boreholes() -> pd.DataFrame:
    """12 values of a solution and 5 of its coefficient, at nodes, in mixed order; noise of 2 % of their deviations."""
    problem, rng = make_problem("poisson", {}), np.random.default_rng(8)
    coefficient = problem.sample_coefficients([3], SIZE, 6)
    fields = np.stack([problem.solve(coefficient)[0].numpy(), coefficient[0].numpy()])
    of = rng.permutation([0] * 12 + [1] * 5)
    i, j = np.divmod(rng.choice(SIZE**2, 17, replace=False), SIZE)
    inside = np.where(of == 0, 1, 0)  # the solution is known on the boundary
    i, j = (np.clip(n, inside, SIZE - 1 - inside) for n in (i, j))
    noise = 0.02 * fields.std(axis=(1, 2))[of]
    value = fields[of, i, j] + noise * rng.standard_normal(17)
    names = np.array(["solution", "coefficient"])[of]
    return pd.DataFrame({"x": i / (SIZE - 1), "y": j / (SIZE - 1), "value": value, "noise": noise, "of": names})


def at_nodes(fields: np.ndarray, rows: pd.DataFrame) -> np.ndarray:
    """Values [N, m] of fields [N, S, S] at the nodes of the rows."""
    i, j = (np.round(rows[axis] * (SIZE - 1)).astype(int) for axis in "xy")
    return fields[:, i, j]


def test_values_of_the_coefficient_and_of_the_solution_give_the_closed_form(folder):
    """100 exact samples: their mean is about 1/sqrt(100) of the posterior's spread away from dense linear algebra."""
    rows, problem, modes = boreholes(), make_problem("poisson", {}), square(SIZE).basis
    units = modes.inverse(torch.eye(SIZE**2, dtype=torch.float64).reshape(-1, SIZE, SIZE))
    of = (rows["of"] == "coefficient").to_numpy()
    seen = np.where(of, at_nodes(units.numpy(), rows), at_nodes(problem.solve(units).numpy(), rows)).T
    spectrum = np.diag(problem.prior_spectrum(SIZE).numpy().ravel())
    gain = spectrum @ seen.T @ np.linalg.inv(seen @ spectrum @ seen.T + np.diag(rows["noise"].to_numpy() ** 2))
    mean, covariance = gain @ rows["value"].to_numpy(), spectrum - gain @ seen @ spectrum
    found = ddis.solve(folder / "models" / "poisson", rows, percent=100, method="exact", samples=100)
    samples = modes.forward(torch.from_numpy(found.samples).double()).flatten(1).numpy()
    assert np.linalg.norm(samples.mean(axis=0) - mean) < 0.25 * np.sqrt(np.trace(covariance))
    assert samples.var(axis=0, ddof=1).sum() == pytest.approx(np.trace(covariance), rel=0.2)
    assert found.misfit.explained and np.array_equal(found.observations.of, of)
    expected = np.where(of, at_nodes(found.samples, rows), at_nodes(problem.solve(torch.from_numpy(found.samples)).numpy(), rows))
    assert np.abs(found.predicted - expected).max(axis=0) / rows["noise"].to_numpy() == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("method", ["exact", "ddis-gn", "tikhonov"])
def test_samples_follow_values_of_the_coefficient_alone(folder, method):
    """The operator takes no part; 2 % noise leaves a standard deviation of at most about 2 % of the prior's at these nodes."""
    rows = boreholes()
    rows = rows[rows["of"] == "coefficient"]
    found = ddis.solve(folder / "models" / "poisson", rows, percent=100, method=method, samples=16)
    assert (at_nodes(found.std[None], rows)[0] < 0.1 * found.std.max()).all()
    assert (np.abs(at_nodes(found.mean[None], rows)[0] - rows["value"]) < 4 * rows["noise"]).all()
    assert found.misfit.ratio == pytest.approx(1, abs=0.5) and found.picture().axes[0].get_title() == "0 values of the solution"


def test_joint_methods_are_guided_by_values_of_the_coefficient(folder):
    rows = boreholes()
    own = (rows["of"] == "coefficient").to_numpy()
    away = {}
    for run in ("guided", "unguided"):
        found = ddis.solve(folder / "models" / "poisson", rows, percent=100, method=run, samples=8)
        assert np.allclose(found.predicted[:, own], at_nodes(found.samples, rows[own]), atol=1e-4)
        away[run] = np.square(found.predicted - rows["value"].to_numpy())[:, own].mean()
    assert away["guided"] < 0.2 * away["unguided"]


def test_the_worst_value_may_be_one_of_the_coefficient(folder, tmp_path, caplog):
    rows = boreholes()
    worst = int(np.flatnonzero(rows["of"] == "coefficient")[1])
    rows.loc[rows["of"] == "solution", "noise"] *= 1e6
    rows.loc[worst, "value"] += 3e4 * rows.loc[worst, "noise"]
    rows.to_csv(tmp_path / "points.csv", index=False)
    assert main(solve_command(folder, tmp_path / "points.csv", tmp_path / "out.h5", "--method", "exact")) == 0
    assert f"Largest at ({rows.x[worst]:g}, {rows.y[worst]:g}), of the coefficient: " in caplog.text
    with h5py.File(tmp_path / "out.h5") as file:
        assert np.array_equal(file["of"], rows["of"] == "coefficient") and file.attrs["worst"] == worst
        assert np.allclose(file["observations"], rows[["x", "y", "value", "noise"]])


def test_the_column_of_is_read_in_any_case_and_empty_is_the_solution(tmp_path):
    (tmp_path / "points.csv").write_text(
        "Of;X;y;value\n Coefficient ;0;1;0,5\n;0,5;0,5;2\nSOLUTION;0,25;0,5;3\ncoefficient;0,5;0,5;2\n"
    )
    columns = {"x": [0, 0.5, 0.25, 0.5], "y": [1, 0.5, 0.5, 0.5], "value": [0.5, 2, 3, 2]}
    words = ["COEFFICIENT", None, "solution ", "coefficient"]
    for source in (
        tmp_path / "points.csv",
        {**columns, "OF": words},
        pd.DataFrame({**columns, "of": [words[0], np.nan, *words[2:]]}),
    ):
        data = read_observations(source, PLAIN)
        assert data.of.tolist() == [True, False, False, True]
        assert data.table().tolist() == [[0, 1, 0.5, 0], [0.5, 0.5, 2, 0], [0.25, 0.5, 3, 0], [0.5, 0.5, 2, 0]]
    with pytest.raises(InputError, match=r"observations: row 2: of is flux; accepted: solution \(or empty\), coefficient"):
        read_observations({**columns, "of": ["", "flux", 1, ""]}, PLAIN)


def test_every_node_of_the_coefficient_may_be_observed_and_no_more():
    i, j = np.divmod(np.arange(SIZE**2), SIZE)
    rows = pd.DataFrame({"x": i / (SIZE - 1), "y": j / (SIZE - 1), "value": 1.0, "of": "coefficient"})
    assert len(read_observations(rows, PLAIN)) == 256
    more = pd.concat([rows, rows[:1] + {"x": 0.01, "y": 0.0, "value": 0.0, "of": ""}])
    with pytest.raises(InputError, match="257 observations of the coefficient are more than there are nodes; accepted: 1 to 256"):
        read_observations(more, PLAIN)
    with pytest.raises(InputError, match="256 observations are more than there are nodes; accepted: 1 to 196"):
        read_observations(rows.drop(columns="of"), PLAIN)


@pytest.mark.parametrize("method", ["ddis", "ddis-gn", "tikhonov", "fundps"])
def test_methods_with_an_operator_or_a_joint_prior(folder, example, method):
    _, rows = observed(example, 10, 0.01)
    found = ddis.solve(folder / "models" / "poisson", rows, percent=100, method=method, samples=2)
    assert np.isfinite(found.mean).all() and found.predicted.shape == (2, 10)
    known = found.attributes
    assert (
        known["run"] == method
        and known["pairs"] == 64
        and set(known["models"])
        == set({"fundps": ["joint-100"], "tikhonov": ["operator-100"]}.get(method, ["prior", "operator-100"]))
    )


def test_an_answer_through_a_network_says_how_many_samples_the_solver_leaves(folder, example, tmp_path, caplog):
    """The network of the tiny study has learnt nothing; `exact` has no network, and `ddis` does not follow R."""
    _, rows = observed(example, 10, 0.01)
    pd.DataFrame(rows, columns=["x", "y", "value", "noise"]).to_csv(tmp_path / "points.csv", index=False)
    caplog.set_level(logging.INFO)
    assert main(solve_command(folder, tmp_path / "points.csv", tmp_path / "out.h5", "--method", "tikhonov")) == 0
    with h5py.File(tmp_path / "out.h5") as file:
        weights, effective = file["weights"][:], file.attrs["effective_samples"]
    assert len(weights) == 4 and weights.sum() == pytest.approx(1) and effective == pytest.approx(1 / np.square(weights).sum())
    line = f"against the solver's likelihood: effective {effective:.2g} of 4 samples; too few to reweight"
    assert effective < 2 and line in caplog.text
    for method in ("exact", "ddis"):
        found = ddis.solve(folder / "models" / "poisson", rows, percent=100, method=method, samples=2)
        assert found.weights is None and "effective_samples" not in found.attributes


@pytest.mark.parametrize(
    ("effective", "text"),
    [
        (9.4, "effective 9.4 of 256 samples; too few"),
        (120.4, "effective 120 of 256 samples; too few"),
        (128.2, "effective 128 of 256 samples\n"),
    ],
)
def test_the_effective_number_is_written_in_full(effective, text, caplog):
    caplog.set_level(logging.INFO)
    report_weights(SimpleNamespace(weights=np.full(256, 1 / 256), attributes={"effective_samples": effective}))
    assert text in caplog.text


def test_a_solver_that_refuses_every_sample_or_fails_loses_none(folder, example, tmp_path, monkeypatch, caplog):
    _, rows = observed(example, 10, 0.01)
    pd.DataFrame(rows, columns=["x", "y", "value", "noise"]).to_csv(tmp_path / "points.csv", index=False)
    for error, said in (
        (InputError, "warning: the solver refuses all 4 samples"),
        (ZeroDivisionError, "fails: ZeroDivisionError: no"),
    ):

        def refuse(problem, coefficient, error=error):
            raise error("no")

        with monkeypatch.context() as patch:
            patch.setattr("ddis.posterior.solved", lambda problem, a: or_nan(partial(refuse, problem), a))
            command = solve_command(folder, tmp_path / "points.csv", tmp_path / "out.h5", "--method", "tikhonov", "--force")
            assert main(command) == 0
        assert said in caplog.text
        with h5py.File(tmp_path / "out.h5") as file:
            assert file["samples"].shape[0] == 4
            if error is InputError:
                assert file.attrs["effective_samples"] == 0 and not file["weights"][:].any()
            else:
                assert "weights" not in file and "effective_samples" not in file.attrs


def test_samples_that_are_not_finite_are_left_out(folder, caplog):
    rows = np.array([[0.5, 0.5, 1.0], [0.25, 0.5, 1.0]])
    found = ddis.solve(folder / "models" / "poisson", rows, percent=100, method="failing", samples=6)
    assert len(found.samples) == 3 and found.attributes["n_failed"] == 3 and np.isfinite(found.std).all()
    assert "3 of 6 samples are not finite and are left out" in caplog.text
    with pytest.raises(InputError, match="5 of 6 samples are not finite"):
        ddis.solve(folder / "models" / "poisson", -rows * [-1, -1, 1], percent=100, method="failing", samples=6)


# Files and forms


def test_forms_of_observations_agree(folder, example, tmp_path):
    model, (_, rows) = folder / "models" / "poisson", observed(example, 9, 0.01)
    rows[-1] = rows[0]
    table = pd.DataFrame(rows, columns=["x", "y", "value", "noise"])
    table[["noise", "value", "y", "x"]].to_csv(tmp_path / "points.csv", index=False)
    forms = [rows, rows.tolist(), table, dict(table), tmp_path / "points.csv", str(tmp_path / "points.csv")]
    percents = ["100", 100, 100.0, "10", 50, 1]  # `exact` uses no pairs
    found = [ddis.solve(model, f, percent=p, samples=2, method="exact") for f, p in zip(forms, percents, strict=True)]
    assert len(found[0].observations) == 8
    for other in found[1:]:
        assert np.allclose(other.samples, found[0].samples, atol=1e-5)
    different = ddis.solve(model, rows, percent=100, samples=2, method="exact", seed=1)
    assert np.abs(different.samples - found[0].samples).max() > 0.01


def test_a_mask_as_in_the_files_of_samples(folder):
    mask, field = np.zeros((SIZE, SIZE), dtype=bool), np.ones((SIZE, SIZE))
    mask[3, 7] = mask[9, 2] = True
    data = read_observations((mask, field), PLAIN)
    assert data.table()[:, :2] * (SIZE - 1) == pytest.approx(np.array([[3, 7], [9, 2]])) and (data.value == 1).all()
    for wrong in ((mask[:-1], field[:-1]), (mask,), (mask, field[None])):
        with pytest.raises(InputError, match=r"observations: shapes .*accepted: mask and solution, both \(16, 16\)"):
            ddis.solve(folder / "models" / "poisson", wrong, percent=100)
    with pytest.raises(InputError, match="a mask of int64"):
        ddis.solve(folder / "models" / "poisson", (mask.astype(int), field), percent=100)


def test_the_same_command_gives_the_same_arrays_and_does_not_write_over_them(folder, example, tmp_path, capsys):
    _, rows = observed(example, 10, 0.01)
    pd.DataFrame(rows, columns=["x", "y", "value", "noise"]).to_csv(tmp_path / "points.csv", index=False)
    output = tmp_path / "new" / "out.h5"
    command = solve_command(folder, tmp_path / "points.csv", output, percent="10")
    assert main(command) == 0
    with h5py.File(output) as file:
        first = file.attrs["digest"]
        shapes = {name: file[name].shape for name in file}
        assert file.attrs["format"] == "ddis-solution" and file.attrs["percent"] == 10 and file.attrs["pairs"] == 6
        assert "git_commit" in file.attrs["provenance"] and file.attrs["operator"] == "fno"
    grid = (SIZE, SIZE)
    expected = {"mean": grid, "std": grid, "samples": (4, *grid), "x": (SIZE,), "y": (SIZE,)}
    assert shapes == expected | {"observations": (10, 4), "predicted": (4, 10), "weights": (4,)}
    assert (tmp_path / "new" / "out.png").read_bytes()[:4] == b"\x89PNG"
    assert main(command) == 2
    assert "out.h5 is there already; choose another --output, or write over it with --force" in capsys.readouterr().err
    assert main([*command, "--force"]) == 0
    with h5py.File(output) as file:
        assert file.attrs["digest"] == first
    assert sorted(path.name for path in output.parent.iterdir()) == ["out.h5", "out.png"]


@pytest.mark.parametrize("failing", ["to_png", "write_arrays"])
def test_the_file_and_its_picture_are_written_together(folder, tmp_path, monkeypatch, capsys, failing):
    (tmp_path / "points.csv").write_text(GOOD)
    command = solve_command(folder, tmp_path / "points.csv", tmp_path / "new" / "out.h5", "--method", "exact")

    def fail(*_: object) -> None:
        raise InputError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(f"ddis.stages.solve.{failing}", fail)
        assert main(command) == 2
    assert list((tmp_path / "new").iterdir()) == []
    assert main(command) == 0
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["out.h5", "out.png"]
    (tmp_path / "new" / "out.png").unlink()
    (tmp_path / "new" / "out.png").mkdir()
    assert main([*command, "--force"]) == 2
    assert "out.png is a folder; choose another --output" in capsys.readouterr().err


def test_a_study_that_was_moved_needs_only_its_configuration_and_models(folder, example, tmp_path, monkeypatch):
    _, rows = observed(example, 10, 0.01)
    here = ddis.solve(folder / "models" / "poisson", rows, percent=10, samples=2)
    shutil.copytree(folder / "models", tmp_path / "elsewhere" / "models")
    shutil.copy(folder / "config.yaml", tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path / "elsewhere" / "models")
    for model in ("poisson", Path("../models/poisson/")):
        there = ddis.solve(model, rows, percent=10, samples=2)
        assert np.array_equal(there.samples, here.samples)


# Input that is refused

GOOD = "x,y,value,noise\n0.5,0.5,1,0.1\n0.25,0.5,2,0.1\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"points\.csv: it is empty; accepted: a header such as x,y,value"),
        ("x,y,value\n", r"no observation; accepted: 1 to 196 at 16 x 16 nodes"),
        ("x,y,u\n0.5,0.5,1\n", r"columns x, y, u; accepted: x, y, value, and optionally noise"),
        ("x,y,value,time\n0.5,0.5,1,0\n", r"columns x, y, value, time"),
        ("x,y,value\n0.5,0.5,1\n0.5,1.5,1\n", r"line 3: point \(0\.5, 1\.5\) is outside the domain \(1 of 2 are\)"),
        ("x,y,value\n-0.1,0.5,1\n", r"line 2: point \(-0\.1, 0\.5\) is outside the domain"),
        ("x,y,value\n0.5,0.5,1\n0.2,0.5,nan\n", r"line 3: value is nan; accepted: a finite number"),
        ("x,y,value\n0.5,0.5,inf\n", r"line 2: value is inf"),
        ("x,y,value\n0.5,,1\n", r"line 2: y is empty"),
        ("x,y,value\n0.5,0.5,much\n", r"line 2: value is much"),
        (GOOD + "0.5,0.5,3,0.1\n", r"line 2 and line 4 give different values or noise for the point \(0\.5, 0\.5\)"),
        (GOOD + "0.5,0.5,1,0.2\n", r"line 2 and line 4 give different values or noise"),
        (GOOD + "0.5000001,0.5,3,0.1\n", r"line 2 and line 4 give different values or noise"),
        ("x,y,value\n0.5,0.25,0.004,0.0001\n", r"line 2 has 4 cells, and the header 3 names \(x, y, value\)"),
        ("x,y,value\n0.5,0.25,1e200\n", r"value 1e\+200 at \(0\.5, 0\.25\) is more than 1e\+06 standard deviations"),
        ("x,y,value,noise\n0.5,0.5,1,-0.1\n", r"line 2: noise -0\.1; accepted: a standard deviation, 0 or more"),
        (
            "x,y,value,of\n0.5,0.5,1,\n0.2,0.5,1,flux\n",
            r"points\.csv: line 3: of is flux; accepted: solution \(or empty\), coeff",
        ),
        (
            "x,y,value,of\n0.5,0.5,1,solution\n0.5,0.5,2,coefficient\n0.5,0.5,3,coefficient\n",
            r"line 3 and line 4 give different values or noise for the point \(0\.5, 0\.5\)",
        ),
        ("x,y,value\n0.5,0.5\n0.1,0.1,1,1,1\n", r"points\.csv: line 2 has 2 cells, and the header 3 names"),
    ],
)
def test_observations_that_cannot_be_used(folder, tmp_path, capsys, text, message):
    (tmp_path / "points.csv").write_text(text)
    assert main(solve_command(folder, tmp_path / "points.csv", tmp_path / "out.h5")) == 2
    error = capsys.readouterr().err
    assert re.search(message, error) and "Traceback" not in error and not (tmp_path / "out.h5").exists()


def test_more_observations_than_nodes_and_wrong_shapes(folder):
    many = np.random.default_rng(0).uniform(0.1, 0.9, (197, 3))
    with pytest.raises(InputError, match="197 observations are more than there are nodes; accepted: 1 to 196"):
        ddis.solve(folder / "models" / "poisson", many, percent=100)
    for wrong in (many[:, :2], many[0], np.zeros((3, 5))):
        with pytest.raises(InputError, match=r"array of shape .*accepted: \[m, 3\]"):
            ddis.solve(folder / "models" / "poisson", wrong, percent=100)
    with pytest.raises(InputError, match="accepted: columns of one length"):
        ddis.solve(folder / "models" / "poisson", {"x": [0.1, 0.2], "y": [0.1], "value": [1.0]}, percent=100)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--percent": "5"}, r"percent 5: ddis-gn has no network for it in .*poisson; percents there: 10, 100"),
        ({"--percent": "0"}, r"percent '0'; accepted"),
        ({"--samples": "1"}, r"samples 1; accepted: 2 or more"),
        ({"--seed": "-1"}, r"seed -1; accepted: a whole number, 0 or more"),
        ({"--method": "nonsense"}, r"method 'nonsense' is unknown; accepted: ddis, ddis-gn"),
        ({"--method": "prior-mean"}, r"samples: Input should be less than or equal to 1"),
        ({"--output": "out.txt"}, r"--output out\.txt; accepted: a name that ends with \.h5"),
        ({"--observations": "nowhere.csv"}, r"nowhere\.csv cannot be read: No such file"),
        (
            {"--model": "results/tiny/models/burgers"},
            r"model results/tiny/models/burgers; accepted: results/<study>/models/<problem>",
        ),
        ({"--model": "results/tiny"}, r"model results/tiny; accepted"),
        (
            {"--method": "fundps", "--percent": "10"},
            r"percent 10: fundps has no network for it in .*poisson; percents there: 100",
        ),
    ],
)
def test_other_input_that_cannot_be_used(folder, tmp_path, capsys, change, message):
    (tmp_path / "points.csv").write_text(GOOD)
    command = [*solve_command(folder, tmp_path / "points.csv", tmp_path / "out.h5"), "--seed", "0", "--method", "ddis-gn"]
    for name, value in change.items():
        command[command.index(name) + 1] = value
    assert main(command) == 2
    error = capsys.readouterr().err
    assert re.search(message, error) and "Traceback" not in error


# The documentation


def test_the_commands_of_the_page(folder, example, tmp_path, monkeypatch, capsys):
    """Every command of docs/solve.md that begins with `ddis` or `python`, on the tiny study; and its Python."""
    page, finished = (ROOT / "docs" / "solve.md").read_text(encoding="utf-8"), folder.absolute()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "quickstart").symlink_to(finished)
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    commands = re.findall(r"^    (ddis solve .*|python docs/solve/example\.py .*)$", page, re.MULTILINE)
    assert len(commands) >= 2
    for command in commands:
        program, *arguments = shlex.split(command)
        if program == "ddis":
            assert main(arguments) == 0
        else:
            monkeypatch.setattr(sys, "argv", arguments)
            example.main()
            assert "relative l2 error of the mean" in capsys.readouterr().out
    [code] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(compile(code, "docs/solve.md", "exec"), {})


def test_the_page_is_refreshed_with_what_the_command_says_after_its_progress():
    import refresh

    said = [
        "poisson ddis-gn: 16 of 16 samples",
        "solution.h5, solution.png: mean",
        "warning: misfit is 5 times",
        "importance weights",
    ]
    assert refresh.lines_from("solution.h5", said) == said[1:]
    assert refresh.lines_from("warning: misfit", said)[0] == said[2]


def test_the_committed_observations_are_those_of_the_script(tmp_path, monkeypatch):
    import example as module

    monkeypatch.setattr(module, "SIZE", 32)
    committed = np.loadtxt(ROOT / "docs" / "solve" / "observations.csv", delimiter=",", skiprows=1)
    assert np.allclose(committed, module.observations(), rtol=1e-5)


def test_torch_is_left_as_it_was():
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with threads(3):
            assert torch.get_num_threads() == 3 and not torch.backends.cudnn.allow_tf32
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(before, warn_only=True)
