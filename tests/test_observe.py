"""Observation operators: their values against NumPy, every method that uses an operator with every kind, and black boxes.

The truth is the closed form by dense linear algebra in NumPy, with the prior's spectrum and the functionals applied by hand.
"""

import logging
from copy import copy
from functools import cache

import numpy as np
import pytest
import torch
import yaml
from scipy.interpolate import RegularGridInterpolator

import ddis
from ddis.config import Study
from ddis.data.store import read_samples
from ddis.errors import InputError
from ddis.evaluation.scores import field_scores
from ddis.evaluation.table import error_row
from ddis.grid import Grid, Space, square
from ddis.models.normalisation import Normalisation
from ddis.observe.base import Functionals, Placed
from ddis.observe.points import PointsSettings
from ddis.operators.solver import Solver
from ddis.sampling.methods import load_method, run_settings
from ddis.stages import generate, sample

SIZE = 12
PLAIN = Space(square(SIZE))
XY = np.random.default_rng(3).random((10, 2))
NODES = [14, 27, 40, 65, 80, 101]
NOISE = 2e-4
SENSORS = {
    "nodes": ddis.observe.nodes(NODES, noise=NOISE),
    "points": ddis.observe.points(XY, noise=NOISE, between_nodes=False),
    "blocks": ddis.observe.blocks(4, noise=NOISE),
    "columns": ddis.observe.columns([3, 8], noise=NOISE),
    "lines": ddis.observe.lines([[[0.1, 0.2], [0.9, 0.7]]], 6, noise=NOISE, between_nodes=False),
    "coefficient": ddis.observe.coefficient(XY[:5], noise=0.02, between_nodes=False),
}
SENSORS["sum"] = SENSORS["blocks"] + SENSORS["coefficient"] + SENSORS["nodes"]


def by_hand(kind: str, u: np.ndarray, a: np.ndarray) -> np.ndarray:
    """The values of fields [N, S, S]."""

    def at(field: np.ndarray, xy: np.ndarray) -> np.ndarray:
        place = xy * (SIZE - 1)
        i, j = np.minimum(place.astype(int), SIZE - 2).T
        f, g = (place - np.stack([i, j], axis=1)).T
        low = (1 - g) * field[:, i, j] + g * field[:, i, j + 1]
        return (1 - f) * low + f * ((1 - g) * field[:, i + 1, j] + g * field[:, i + 1, j + 1])

    if kind == "sum":
        return np.concatenate([by_hand(each, u, a) for each in ("blocks", "coefficient", "nodes")], axis=1)
    return {
        "nodes": lambda: u.reshape(len(u), -1)[:, NODES],
        "points": lambda: at(u, XY),
        "blocks": lambda: u.reshape(len(u), 4, 3, 4, 3).mean(axis=(2, 4)).reshape(len(u), -1),
        "columns": lambda: u[:, [3, 8]].reshape(len(u), -1),
        "lines": lambda: at(u, np.linspace([0.1, 0.2], [0.9, 0.7], 6)),
        "coefficient": lambda: at(a, XY[:5]),
    }[kind]()


@cache
def observed(kind: str) -> tuple[ddis.Posterior, np.ndarray, np.ndarray]:
    """The posterior of one field, and its mean and covariance [P, P] in the cosine basis."""
    problem = ddis.problem("poisson", resolution=SIZE)
    modes = square(SIZE).basis
    truth = problem.sample_coefficients([7], SIZE, 3)
    units = modes.inverse(torch.eye(SIZE**2, dtype=torch.float64).reshape(-1, SIZE, SIZE))
    rows = by_hand(kind, problem.solve(units).numpy(), units.numpy()).T
    noise = np.concatenate([np.full(len(by_hand(k, *2 * [truth.numpy()])[0]), SENSORS[k].noise) for k in parts(kind)])
    values = by_hand(kind, problem.solve(truth).numpy(), truth.numpy())[0] + noise * np.random.default_rng(1).standard_normal(
        len(noise)
    )
    spectrum = np.diag(problem.prior_spectrum(SIZE).numpy().ravel())
    gain = spectrum @ rows.T @ np.linalg.inv(rows @ spectrum @ rows.T + np.diag(noise**2))
    posterior = ddis.Posterior(problem, ddis.prior.gaussian(problem), ddis.operator.solver(problem), SENSORS[kind], values)
    return posterior, gain @ values, spectrum - gain @ rows @ spectrum


def parts(kind: str) -> tuple[str, ...]:
    return ("blocks", "coefficient", "nodes") if kind == "sum" else (kind,)


@pytest.mark.parametrize("kind", SENSORS)
def test_values_are_those_by_hand(kind):
    rng = np.random.default_rng(0)
    u, a = rng.standard_normal((2, 3, SIZE, SIZE))
    functionals = Placed(SENSORS[kind], PLAIN, PLAIN).functionals
    seen = functionals.stack(*(torch.from_numpy(f) if s else None for f, s in zip((u, a), functionals.seen, strict=True)))
    index, _ = Placed(SENSORS[kind], PLAIN, PLAIN).draw(0, 0)
    assert np.allclose(functionals(seen)[:, index], by_hand(kind, u, a), atol=1e-12)
    assert np.allclose(functionals(seen, torch.from_numpy(index).expand(3, -1)), by_hand(kind, u, a), atol=1e-12)


@pytest.mark.parametrize("kind", SENSORS)
def test_exact_is_the_closed_form_of_every_kind(kind):
    posterior, mean, covariance = observed(kind)
    result, modes = posterior.sample("exact", samples=4), square(SIZE).basis
    scale = np.sqrt(np.trace(covariance) / len(mean))
    assert np.abs(modes.forward(torch.from_numpy(result.mean).double()).numpy().ravel() - mean).max() < 0.01 * scale
    fields = modes.inverse(torch.eye(SIZE**2, dtype=torch.float64).reshape(-1, SIZE, SIZE)).flatten(1).numpy()
    variance = np.einsum("pi,pq,qi->i", fields, covariance, fields)
    assert np.allclose(result.std.ravel() ** 2, variance, atol=0.01 * variance.max())


@pytest.mark.parametrize("kind", SENSORS)
@pytest.mark.parametrize("method", ["ddis-gn", "matrix-free", "tikhonov", "es-mda"])
def test_methods_agree_with_the_closed_form_of_every_kind(kind, method):
    """Error of the mean in units of the posterior's spread: 1/sqrt(K) for exact samples; an ensemble of 1,000 adds its own."""
    posterior, mean, covariance = observed(kind)
    name, settings = ("ddis-gn", {"solver": "matrix-free", "tolerance": 0.01}) if method == "matrix-free" else (method, {})
    count = 1000 if method == "es-mda" else 100
    result = posterior.sample(name, samples=count, **settings)
    found = square(SIZE).basis.forward(torch.from_numpy(result.samples).double()).flatten(1).numpy()
    away = np.linalg.norm(found.mean(axis=0) - mean) / np.sqrt(np.trace(covariance))
    spread = np.sqrt(found.var(axis=0, ddof=1).sum() / np.trace(covariance))
    assert away < 0.25 and spread == pytest.approx(1, abs=0.12)
    assert result.misfit.ratio == pytest.approx(1, abs=0.35)


@pytest.mark.parametrize(("method", "settings"), [("ddis", {"weight": 0.01}), ("ddis-dps", {"weight": 1.0})])
def test_guidance_pulls_towards_every_kind(method, settings):
    for kind in SENSORS:
        posterior, *_ = observed(kind)
        free, pulled = (
            posterior.sample(method, samples=4, steps=20, **{**settings, "weight": w}) for w in (0.0, settings["weight"])
        )
        assert pulled.misfit.ratio < 0.9 * free.misfit.ratio, kind


class Beyond(ddis.observe.Sensors):
    """Whose last functional is of a node that the grid does not have."""

    @classmethod
    def of_settings(cls, settings):
        return cls(settings.noise)

    def functionals(self, grid):
        return Functionals(torch.tensor([[SIZE**2]]), None, SIZE**2)


def test_what_is_simulated_needs_the_fields_that_are_observed():
    field, borehole = np.pad(np.ones((SIZE - 2, SIZE - 2)), 1), ddis.observe.coefficient([[0.5, 0.5]])
    assert ddis.observe.simulate(borehole, field, 2 * field) == pytest.approx([2.0])
    for fields, sensors, message in (
        ((field,), borehole, r"coefficient: none, but it is observed"),
        ((field[None],), ddis.observe.nodes([3]), r"solution of shape \(1, 12, 12\); accepted: one field"),
        ((field, field[:3]), borehole, r"coefficient of shape \(3, 12\); accepted: one field \(12, 12\)"),
        ((field + 1,), ddis.observe.points([[0.5, 0.5]]), r"solution: not 0 on the boundary, .*accepted: .*problem=problem"),
        ((field,), ddis.observe.nodes([3, 4], noise=[0.1] * 3), r"noise of shape \(3,\) for 2 values"),
    ):
        with pytest.raises(InputError, match=message):
            ddis.observe.simulate(sensors, *fields)


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("poisson", 16, r"its coefficient has nodes \(16, 16\), not \(13, 13\)"),
        ("navier-stokes", 13, r"its coefficient has periodic \(True, True\), not \(False, False\)"),
        ("poisson-l-shape", 13, r"its coefficient has another mask"),
    ],
)
def test_an_operator_of_another_problem_or_resolution_is_refused(name, size, message):
    problem = ddis.problem("poisson", resolution=13)
    other = Solver(ddis.problem(name, resolution=size), Normalisation(0.0, 1.0))
    for operator in (other, ddis.operator.corrected(Solver(problem), other)):
        with pytest.raises(InputError, match=message):
            ddis.Posterior(problem, ddis.prior.gaussian(problem), operator, ddis.observe.nodes([30]), [0.0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": -1}, "seed -1; accepted: a whole number, 0 or more"),
        ({"seed": "1"}, "seed '1'; accepted: a whole number"),
        ({"seed": 1.5}, "seed 1.5; accepted"),
        ({"seed": 2**70}, "seed .*; accepted: a whole number, 0 or more, and below 2.63"),
        ({"device": "gpu"}, "device 'gpu': .*accepted: cpu"),
        ({"device": 1.5}, "device 1.5: .*accepted: cpu"),
        ({"values": ["1.0"]}, "values of type <U3; accepted: an array of numbers"),
        ({"values": [[1.0], [1.0, 2.0]]}, "values: .*accepted: an array of numbers"),
        ({"values": [None]}, "values of type object; accepted: an array of numbers"),
        ({"values": torch.ones(1, requires_grad=True)}, "values: .*requires grad.*accepted: an array of numbers"),
        ({"values": np.ma.masked_array([1.0], mask=[True])}, "values: some are masked; accepted: those that are known"),
        ({"variance": [0.0]}, r"variance of shape \(1,\); accepted: numbers above 0"),
        ({"variance": [np.nan]}, r"variance of shape \(1,\); accepted: numbers above 0"),
        ({"variance": [1.0, 1.0]}, r"variance of shape \(2,\); accepted: numbers above 0, one for each of 1 values"),
    ],
)
def test_an_argument_of_a_wrong_type_is_refused_by_its_name(arguments, message):
    problem = ddis.problem("poisson", resolution=SIZE)
    given = {"values": [0.0], **arguments}
    with pytest.raises(InputError, match=f"^{message}"):
        ddis.Posterior(problem, ddis.prior.gaussian(problem), None, ddis.observe.nodes([30]), **given)


@pytest.mark.parametrize(
    "change", [lambda x: np.flip(np.flip(x).copy()), lambda x: x.astype(">f8"), lambda x: x.astype(np.longdouble)]
)
def test_arrays_may_be_reversed_and_of_any_byte_order(change):
    problem, sensors = ddis.problem("poisson", resolution=SIZE), SENSORS["nodes"]
    a = problem.sample_coefficients(range(8), SIZE, 3)
    u, a = problem.solve(a)[0].numpy(), a.numpy()
    values, again = (ddis.observe.simulate(sensors, field) for field in (u, change(u)))
    assert np.array_equal(values, again)
    priors = [ddis.prior.empirical(problem, fields) for fields in (a, change(a))]
    first, other = (
        ddis.Posterior(problem, prior, None, sensors, given)
        for prior, given in zip(priors, (values, change(values)), strict=True)
    )
    assert torch.equal(first.values, other.values) and torch.equal(first.prior.spectrum, other.prior.spectrum)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ddis.observe.columns([0.5]), r"at \[0\.5\]; accepted: whole numbers"),
        (lambda: ddis.observe.columns([10**30]), r"at .*; accepted: whole numbers"),
        (lambda: ddis.observe.nodes([18.7, 20.2]), r"index \[18\.7, 20\.2\]; accepted: whole numbers"),
        (lambda: ddis.observe.nodes(np.eye(SIZE, dtype=bool)), r"index .*; accepted: whole numbers"),
        (lambda: ddis.observe.nodes(np.ones((2, 2, 2))), r"index of shape \(2, 2, 2\); accepted: flat nodes"),
        (lambda: ddis.observe.nodes(2.7), r"index 2\.7; accepted: whole numbers"),
        (lambda: ddis.observe.nodes([[1, 2], [3]]), r"index: .*; accepted: an array of numbers"),
        (lambda: ddis.observe.points(2.7), r"points 2\.7; accepted: whole numbers"),
        (lambda: ddis.observe.points([[0.1, 0.2], [0.3]]), r"points: .*; accepted: an array of numbers"),
        (lambda: ddis.observe.lines([[[0.1, 0.2], [0.3]]], 3), r"ends: .*; accepted: an array of numbers"),
        (lambda: ddis.observe.lines([[[0.1, 0.2], [0.3, 0.4]]], 3.5), r"count 3\.5; accepted: a whole number"),
        (lambda: ddis.observe.blocks("4"), r"count '4'; accepted: a whole number"),
        (lambda: ddis.observe.points(4, noise="small"), r"noise of type <U5; accepted: an array of numbers"),
    ],
)
def test_sensors_of_a_wrong_type_are_refused_not_rounded(make, message):
    with pytest.raises(InputError, match=f"^{message}"):
        make()


class Watched(Solver):
    """A solver that remembers the largest number of fields it was given at once."""

    most = 0

    def __call__(self, coefficient: torch.Tensor) -> torch.Tensor:
        self.most = max(self.most, len(coefficient))
        return super().__call__(coefficient)


@pytest.mark.parametrize("method", ["ddis-gn", "exact"])
def test_no_more_than_a_batch_of_samples_is_evaluated_at_once(method):
    posterior = observed("nodes")[0]
    operator, values = Watched(posterior.problem), posterior.solution.restore(posterior.values[0]).numpy()
    made = ddis.Posterior(posterior.problem, posterior.prior, operator, SENSORS["nodes"], values)
    result = made.sample(method, samples=20, batch=8)
    assert operator.most <= 8
    assert np.allclose(result.predicted, solve(result.samples).reshape(20, -1)[:, NODES], rtol=1e-4, atol=1e-6)


def test_samples_of_a_run_are_solved_in_parts(monkeypatch):
    problem, most = ddis.problem("poisson", resolution=SIZE), []
    samples = problem.sample_coefficients(range(6), SIZE, 3).numpy().reshape(2, 3, SIZE, SIZE)
    expected = solve(samples)
    samples[1, 2] = np.nan
    solver = type(problem).solve
    monkeypatch.setattr(type(problem), "solve", lambda self, a: most.append(len(a)) or solver(self, a))
    monkeypatch.setattr(sample, "SOLVED_TOGETHER", 4 * SIZE**2)
    found = sample.solutions(problem, samples)
    assert max(most) <= 4 and found.shape == samples.shape
    assert np.allclose(found.reshape(6, -1)[:5], expected.reshape(6, -1)[:5], rtol=1e-6, atol=1e-12)


def test_a_seed_of_samples_and_a_resolution_are_whole_numbers():
    posterior = observed("nodes")[0]
    for call, message in (
        (lambda: posterior.sample("exact", seed=-1), "seed -1"),
        (lambda: ddis.problem("poisson", resolution="16"), "resolution '16'"),
        (lambda: ddis.problem("poisson", resolution=16.5), "resolution 16.5"),
    ):
        with pytest.raises(InputError, match=f"^{message}"):
            call()


def test_without_a_number_64_samples_are_drawn_or_the_only_one():
    posterior = observed("nodes")[0]
    assert [len(posterior.sample(method).samples) for method in ("exact", "prior-mean")] == [64, 1]


def test_what_is_outside_or_does_not_fit_is_refused():
    problem = ddis.problem("poisson", resolution=SIZE)
    prior, observe = ddis.prior.gaussian(problem), ddis.observe
    for sensors, message in (
        (observe.points([[0.5, 1.5]]), r"point \(0\.5, 1\.5\) is outside the domain"),
        (observe.nodes([3, 400]), r"accepted: flat indices from 0 to 143"),
        (observe.columns([12]), r"accepted: different indices from 0 to 11"),
        (observe.columns([3], axis=2), r"axis 2 of columns on 12 x 12 nodes; accepted: 0 or 1"),
        (observe.blocks(5), r"count 5 of blocks along each axis of 12 x 12 nodes; accepted: a divisor"),
        (observe.nodes([3, 4]), r"values of shape \(1,\); accepted: 2 for each field"),
        (
            observe.nodes([3], noise=[1e-4] * 2),
            r"assumed_noise of shape \(2,\) for 1 values; accepted: one number, or one for each",
        ),
        (Beyond(), r"Beyond\.functionals: accepted: index \[P, q\] of nodes from 0 to 143"),
    ):
        with pytest.raises(InputError, match=message):
            ddis.Posterior(problem, prior, None, sensors, [0.0])
    for parts, message in (
        (("gaussian", None), "prior str; accepted: "),
        ((prior, problem.solve), r"operator method; .*black_box"),
    ):
        with pytest.raises(InputError, match=message):
            ddis.Posterior(problem, *parts, observe.nodes([3]), [0.0])
    with pytest.raises(InputError, match=r"operator: of runs of a study; here the operator is the posterior's"):
        ddis.Posterior(problem, prior, None, observe.nodes([3]), [0.0]).sample(operator="solver")
    with pytest.raises(InputError, match=r"weight \{'poisson': 3.*; accepted: one number"):
        ddis.Posterior(problem, prior, None, observe.nodes([3]), [0.0]).sample("ddis", weight={"poisson": 3})
    with pytest.raises(InputError, match=r"prior of fields \(16, 16\); the problem's coefficient has \(12, 12\)"):
        ddis.Posterior(problem, ddis.prior.gaussian(ddis.problem("poisson", resolution=16)), None, observe.nodes([3]), [0.0])
    with pytest.raises(InputError, match=r"sensors NoneType; accepted: ddis\.observe"):
        ddis.Posterior(problem, prior, None, None, [0.0])
    with pytest.raises(InputError, match=r"observed nodes of 2 fields; accepted: \[n, m\] with a row for every field"):
        ddis.Posterior(problem, prior, None, observe.nodes([[20], [21]]), np.zeros((3, 1)))
    mask = np.ones((5, 5), dtype=bool)
    mask[:2, :2] = False
    with pytest.raises(InputError, match="outside the domain"):
        observe.points([[0.1, 0.1]]).functionals(Grid((5, 5), (False, False), (1.0, 1.0), mask))


def black_box(function) -> ddis.Posterior:
    posterior, *_ = observed("nodes")
    operator = ddis.operator.black_box(function)
    values = posterior.solution.restore(posterior.values[0]).numpy()
    return ddis.Posterior(posterior.problem, posterior.prior, operator, SENSORS["nodes"], values)


def solve(a: np.ndarray) -> np.ndarray:
    return ddis.problem("poisson", resolution=SIZE).solve(torch.from_numpy(a)).numpy()


def test_a_black_box_gives_what_the_solver_gives_and_needs_a_method_without_gradients():
    posterior, *_ = observed("nodes")
    expected, found = (each.sample("es-mda", samples=50).samples for each in (posterior, black_box(solve)))
    assert np.allclose(found, expected, atol=1e-3 * np.abs(expected).max())
    for method in ("ddis-gn", "ddis", "ddis-dps", "tikhonov"):
        with pytest.raises(InputError, match=rf"method {method}: needs gradients .* accepted: es-mda"):
            black_box(solve).sample(method, samples=2)


@pytest.mark.parametrize("failure", ["raises", "nan"])
def test_a_field_that_a_black_box_cannot_solve_is_named_and_the_others_go_on(failure, caplog):
    marked: list[np.ndarray] = []

    def sometimes(a: np.ndarray) -> np.ndarray:
        if len(a) == 50 and not marked:
            marked.append(a[7].copy())
        bad = [bool(marked) and np.array_equal(row, marked[0]) for row in a]
        if failure == "raises" and any(bad):
            raise RuntimeError("diverged")
        u = solve(a)
        u[bad] = np.nan
        return u

    with caplog.at_level(logging.WARNING):
        result = black_box(sometimes).sample("es-mda", samples=50, assimilations=1)
    assert len(result.samples) == 49 and result.failed == 1 and np.isfinite(result.samples).all()
    assert ("RuntimeError: diverged" if failure == "raises" else "not finite are lost") in caplog.text


def test_a_black_box_of_the_wrong_shape_is_refused_before_any_work():
    with pytest.raises(InputError, match="no solution of 8 typical coefficients"):
        black_box(lambda a: a[:, 1:])


def test_kinds_in_a_study(tmp_path, monkeypatch):
    """Every kind and a list through the stages with `exact`: calibrated, with the misfit of the stated noise."""
    monkeypatch.chdir(tmp_path)
    content = yaml.safe_load(
        """
        {study: kinds, device: cpu, problems: {poisson: {pde: poisson}}, fractions: [1.0],
         data: {resolution: 12, train: 64, validation: 2, test: 12}, runs: {exact: {samples: 8}},
         observations: {
           nodes: {count: 20, noise: 0.05},
           points: {kind: points, count: 20, noise: 0.05},
           blocks: {kind: blocks, count: 4, noise: 0.05, assumed_noise: 0.1},
           wells: [{kind: columns, at: [3, 8], noise: 0.05}, {kind: coefficient, at: [[0.3, 0.3], [0.7, 0.2]], noise: 0.05}]}}
        """
    )
    study = Study.load(content)
    assert Study.load(study.resolved()) == study
    for split in ("train", "test"):
        generate.run(study, "poisson", split)
    for case in study.cases():
        sample.run(study, **vars(case))
        samples = read_samples(study.folder / "samples" / "poisson" / case.observation / "exact-100.h5")
        row = error_row(field_scores(samples), None)
        assert row["misfit"] == pytest.approx(0.05, rel=0.25 if case.observation != "blocks" else 1.0), case
        assert row["coverage90"] == pytest.approx(0.9, abs=0.12), case
        assert row["observations"] == study.observed("poisson", case.observation)
    for wrong, message in (
        ({"kind": "points"}, "either at"),
        ({"kind": "nope"}, "'nope' is unknown"),
        ({"count": 500}, "1 to 100"),
    ):
        with pytest.raises(InputError, match=message):
            Study.load({**content, "observations": {"wrong": wrong}})


# Other spaces


OTHERS = {
    "l-shape": ddis.problem("poisson-l-shape", resolution=SIZE),
    "rectangle": ddis.problem("poisson", resolution=8, aspect=3),
}


def spread_points(grid: Grid, count: int, seed: int) -> np.ndarray:
    points = np.random.default_rng(seed).random((20 * count, 2)) * grid.lengths
    return points[grid.contains(points)][:count]


@pytest.mark.parametrize("name", OTHERS)
def test_exact_is_the_closed_form_on_other_grids_too(name):
    """Points of solution and coefficient, with SciPy's interpolation, and a column."""
    problem = OTHERS[name]
    grid, size = problem.coefficient_space(problem.resolution).grid, problem.resolution
    modes, nodes = grid.basis, int(np.prod(grid.shape))
    where, own, column = spread_points(grid, 12, 1), spread_points(grid, 4, 2), 3
    sensors = ddis.observe.points(where, noise=NOISE, between_nodes=False) + ddis.observe.columns([column], noise=NOISE)
    sensors += ddis.observe.coefficient(own, noise=0.02, between_nodes=False)

    def seen(u: np.ndarray, a: np.ndarray) -> np.ndarray:
        def at(field: np.ndarray, points: np.ndarray) -> np.ndarray:
            return RegularGridInterpolator(grid.coordinates(), np.moveaxis(field, 0, -1))(points).T

        return np.concatenate([at(u, where), u[:, column, grid.nodes[column]], at(a, own)], axis=1)

    units = problem.constrain(modes.inverse(torch.eye(nodes, dtype=torch.float64).reshape(-1, *grid.shape)))
    rows = seen(problem.solve(units).numpy(), units.numpy()).T
    truth = problem.sample_coefficients([7], size, 3)
    noise = np.where(np.arange(len(rows)) < len(rows) - len(own), NOISE, 0.02)
    values = seen(problem.solve(truth).numpy(), truth.numpy())[0] + noise * np.random.default_rng(1).standard_normal(len(rows))
    spectrum = np.diag(problem.prior_spectrum(size).numpy().ravel())
    gain = spectrum @ rows.T @ np.linalg.inv(rows @ spectrum @ rows.T + np.diag(noise**2))
    expected = problem.constrain(modes.inverse(torch.from_numpy(gain @ values).reshape(grid.shape))).numpy()
    fields = units.flatten(1).numpy()
    variance = np.einsum("pi,pq,qi->i", fields, spectrum - gain @ rows @ spectrum, fields).reshape(grid.shape)
    result = ddis.Posterior(problem, ddis.prior.gaussian(problem), None, sensors, values).sample("exact", samples=4)
    assert np.abs(result.mean - expected).max() < 0.02 * np.sqrt(variance.max())
    assert np.allclose(result.std**2, variance, atol=0.01 * variance.max())


def joint_prediction(posterior: ddis.Posterior, a: torch.Tensor, u: torch.Tensor) -> np.ndarray:
    """What joint methods predict of pairs [N, *shape], in physical units."""
    batch = posterior.batch(load_method("fundps")(run_settings("fundps", {"method": "fundps"})), slice(None), [])
    fields = posterior.coefficient.normalise(posterior.problem.relax(a)), posterior.solution.normalise(u)
    spaces = posterior.spaces
    x = torch.cat([space.channelled(field) for space, field in zip(spaces, fields, strict=True)], dim=1)
    place = posterior.index[0]
    return (batch.predict_joint(x) / posterior.unit[place] + posterior.mean[place]).numpy()


@pytest.mark.parametrize("kind", SENSORS)
def test_joint_methods_see_every_kind(kind):
    posterior, *_ = observed(kind)
    a = posterior.problem.sample_coefficients(range(3), SIZE, 5)
    u = posterior.problem.solve(a)
    found, expected = joint_prediction(posterior, a, u), by_hand(kind, u.numpy(), a.numpy())
    assert np.allclose(found, expected, atol=1e-6 * np.abs(expected).max())


def test_each_channel_can_be_observed_through_the_operator_and_jointly():
    problem = ddis.problem("darcy-source", resolution=SIZE)
    conductivity = ddis.observe.coefficient([[0.2, 0.4]], noise=0.1, between_nodes=False)
    sensors = ddis.observe.columns([3], noise=1e-3) + conductivity.of_channel(1) + conductivity
    a = problem.sample_coefficients(range(3), SIZE, 5)
    u = problem.solve(a)
    expected = np.concatenate([u[:, 3].numpy(), by_points(a[:, 1]), by_points(a[:, 0])], axis=1)
    for field in range(3):
        assert np.allclose(simulated(sensors, u[field], a[field], problem), expected[field], atol=1e-12)
    posterior = ddis.Posterior(problem, ddis.prior.gaussian(problem), None, sensors, expected[0])
    assert np.allclose(joint_prediction(posterior, a, u), expected, atol=1e-6)
    assert posterior.sample("ddis-gn", samples=8, steps=20).misfit.ratio < 2
    with pytest.raises(InputError, match="channel 2 of the coefficient; accepted: 0 to 1"):
        ddis.Posterior(problem, ddis.prior.gaussian(problem), None, conductivity.of_channel(2), [1.0])
    with pytest.raises(InputError, match="channel 1 of the solution; accepted: 0, as there is one"):
        ddis.Posterior(problem, ddis.prior.gaussian(problem), None, ddis.observe.nodes([30]).of_channel(1), [1.0])


def by_points(fields: torch.Tensor) -> np.ndarray:
    axis = np.linspace(0, 1, SIZE)
    return RegularGridInterpolator((axis, axis), np.moveaxis(fields.numpy(), 0, -1))([[0.2, 0.4]]).T


def simulated(sensors, u: torch.Tensor, a: torch.Tensor, problem) -> np.ndarray:
    """Without noise."""
    still = [copy(part) for part in sensors.parts]
    for part in still:
        part.noise = np.zeros(())
    return ddis.observe.simulate(ddis.observe.Joined(tuple(still)), u, a, problem=problem)


@pytest.mark.parametrize(
    "grid", [square(9), OTHERS["l-shape"].coefficient_space(9).grid, OTHERS["rectangle"].solution_space(8).grid]
)
def test_a_number_of_points_is_drawn_in_the_domain(grid):
    sensors = ddis.observe.sensors_of(PointsSettings(kind="points", count=50))
    points = sensors.places(grid)
    assert points.shape == (50, 2) and grid.contains(points).all()
    assert points[:, 0].max() > 0.9 * grid.lengths[0] and np.array_equal(points, sensors.places(grid))


@pytest.mark.parametrize(
    ("problem", "observation", "message"),
    [
        ({"pde": "poisson-l-shape"}, {"kind": "points", "at": [[0.9, 0.9]]}, r"point \(0\.9, 0\.9\) is outside the domain"),
        (
            {"pde": "poisson-l-shape"},
            {"kind": "blocks", "count": 4},
            "observations.o: blocks: accepted on domains without a mask",
        ),
        ({"pde": "poisson"}, {"kind": "points", "count": 257}, "count 257: more observations than nodes; accepted: 1 to 256"),
        ({"pde": "poisson", "aspect": 3}, {"kind": "points", "at": [[3.1, 0.9]]}, "x from 0 to 3, y from 0 to 1"),
        ({"pde": "burgers"}, {"kind": "coefficient", "at": [[0.3, 0.9]]}, "points with 2 coordinates on 16 nodes; accepted: 1"),
        (
            {"pde": "darcy-source"},
            {"kind": "coefficient", "count": 3, "channel": 2},
            "channel 2 of the coefficient; accepted: 0 to 1",
        ),
    ],
)
def test_a_study_refuses_what_is_outside_its_spaces(problem, observation, message):
    content = {"study": "outside", "problems": {"p": problem}, "observations": {"o": observation}, "runs": {"prior-mean": None}}
    sizes = {"resolution": 16, "train": 8, "validation": 2, "test": 2}
    with pytest.raises(InputError, match=message):
        Study.load({**content, "data": sizes, "fractions": [1.0]})


def test_a_line_in_and_space_and_time_out():
    """Burgers: one sensor at all times, and values of the initial condition."""
    problem = ddis.problem("burgers", resolution=16, time=0.25)
    a = problem.sample_coefficients([1], 16, 5)
    u = problem.solve(a)
    initial = ddis.observe.coefficient([[0.5], [0.53125]], noise=0.05, between_nodes=False)
    sensors = ddis.observe.columns([4], noise=0.05) + initial
    expected = np.concatenate([u[0, 4], [a[0, 8], a[0, 8:10].mean()]])
    assert np.allclose(simulated(sensors, u[0], a[0], problem), expected, atol=1e-12)
    prior = ddis.prior.gaussian(problem)
    assert ddis.Posterior(problem, prior, None, sensors, expected).sample("ddis-gn", samples=4, steps=5).misfit.ratio < 2

    def own(coefficients: np.ndarray) -> np.ndarray:
        return problem.solve(torch.from_numpy(coefficients)).numpy()

    found, other = (
        ddis.Posterior(problem, prior, operator, sensors, expected).sample("es-mda", samples=40).samples
        for operator in (ddis.operator.solver(problem), ddis.operator.black_box(own, shape=(16, 17)))
    )
    assert np.allclose(found, other, atol=1e-3 * np.abs(found).max())
    with pytest.raises(InputError, match="no solution of 8 typical coefficients"):
        ddis.Posterior(problem, prior, ddis.operator.black_box(own), sensors, expected)
    outside = r"point \(0\.5, 0\.3\) is outside the domain; accepted: x from 0 to 1, t from 0 to 0\.25"
    for wrong, message in (
        (ddis.observe.coefficient([[0.5, 0.1]]), "points with 2 coordinates on 16 nodes; accepted: 1"),
        (ddis.observe.points([[0.5, 0.3]]), outside),
        (ddis.observe.blocks(4), "count 4 of blocks along each axis of 16 x 17 nodes; accepted: a divisor"),
    ):
        with pytest.raises(InputError, match=message):
            ddis.Posterior(problem, prior, None, wrong, [0.0])
