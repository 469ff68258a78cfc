"""Observations between nodes: their interpolation, its error, and the Jacobian of what is predicted there."""

import numpy as np
import pytest
import torch
from batches import last_state, make_batch
from solving import SIZE, example, points

from ddis.fields.bases import basis
from ddis.fields.noise import WhiteNoise
from ddis.grid import square
from ddis.models.normalisation import Normalisation
from ddis.observe import Sensors
from ddis.observe.nodes import Nodes, draw_nodes
from ddis.observe.points import Points, interpolation, interpolation_variance
from ddis.operators.error import OperatorError
from ddis.operators.solver import Solver
from ddis.pde import make_problem
from ddis.priors import gaussian
from ddis.randomness import generator
from ddis.sampling.base import Batch
from ddis.sampling.gauss_newton import SharedJacobian


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


def test_the_error_of_interpolation_is_estimated():
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
