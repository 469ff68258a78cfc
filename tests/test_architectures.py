"""Every architecture of operators: on all kinds of spaces, at any number of nodes, with the products that samplers ask for."""

import json
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from trainings import finish, load, operator_trainer, save

from ddis.grid import Grid, Space, square
from ddis.models.architectures import ARCHITECTURES, Architecture, architecture_of
from ddis.models.checkpoint import load_tensors
from ddis.models.fourier import HermitianSpectralConv
from ddis.models.normalisation import Normalisation
from ddis.models.operator import NeuralOperator
from ddis.pde import make_problem
from ddis.sampling.base import Cost
from ddis.sampling.linearisation import Linearisation

SMALL = {
    "fno": {"modes": 4, "width": 4, "layers": 2},
    "unet": {"channels": [4, 8], "blocks": [1, 1]},
    "uno": {"modes": 4, "width": 4, "levels": 2},
}
PROBLEMS = {
    "poisson": make_problem("poisson", {}),
    "navier-stokes": make_problem("navier-stokes", {}),
    "burgers": make_problem("burgers", {}),
    "darcy-source": make_problem("darcy-source", {}),
    "poisson-l-shape": make_problem("poisson-l-shape", {}),
    "rectangle": make_problem("poisson", {"aspect": 2.0}),
}
UNIT = Normalisation(0.0, 0.5)


def made(name: str) -> Architecture:
    return architecture_of({"architecture": name, **SMALL[name]})


def operator(name: str, spaces: tuple[Space, Space] = (Space(square(16)),) * 2, scale: Normalisation = UNIT) -> NeuralOperator:
    torch.manual_seed(0)
    return NeuralOperator(made(name), spaces, UNIT, scale).eval()


def test_every_architecture_of_the_package_is_tried_here():
    assert set(SMALL) == set(ARCHITECTURES.builtin)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_coefficients_go_to_solutions_with_gradients(name, problem):
    """Of lines into space-time, of several channels, on rectangles and periodic domains; outside a mask u is 0."""
    spaces = PROBLEMS[problem].spaces(16)
    network = operator(name, spaces, Normalisation(3.0, 2.0))
    a = torch.randn(2, *spaces[0].shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    u = network(a)
    assert u.shape == (2, *spaces[1].shape)
    (gradient,) = torch.autograd.grad(u.square().sum(), a)
    assert gradient.isfinite().all() and (gradient != 0).any()
    mask = spaces[1].grid.mask
    if mask is not None:
        assert u[:, torch.from_numpy(~mask)].abs().max() < 1e-5  # 3 - 3 in float32


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("size", [13, 16, 22])
def test_weights_serve_any_number_of_nodes(name, size):
    assert operator(name)(torch.zeros(2, size, size)).shape == (2, size, size)


@pytest.mark.parametrize("name", SMALL)
def test_products_with_the_jacobian_are_adjoint_and_those_of_differences(name):
    """z·(J v) = v·(Jᵀz), and J v = (G(a + h v) - G(a - h v)) / 2h, with h for float32: errors of h² and of 1e-7 / h."""
    network, generator = operator(name), torch.Generator().manual_seed(1)
    a, v, z = (torch.randn(2, 16, 16, generator=generator) for _ in range(3))
    line = Linearisation(a, network, Cost())
    pushed, pulled = line.push(v), line.pull(z)
    assert torch.allclose((z * pushed).sum((1, 2)), (v * pulled).sum((1, 2)), rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        difference = (network(a + 0.01 * v).double() - network(a - 0.01 * v).double()) / 0.02
    assert float((pushed - difference).norm() / difference.norm()) < 0.01


@pytest.mark.parametrize("name", SMALL)
def test_periodic_operators_commute_with_shifts_by_their_coarsest_cell(name):
    """But for the coordinates that Fourier networks see: their weights are set to 0."""
    network = operator(name, (Space(square(16, periodic=True)),) * 2)
    x = torch.randn(1, 16, 16, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        if name != "unet":
            network.network.lifting.fcs[0].weight[:, 1:] = 0
        moved, base = network(x.roll((4, 8), (1, 2))), network(x).roll((4, 8), (1, 2))
    interpolated = name == "uno"  # neuralop's skips are resampled as if the ends were a boundary
    assert float((moved - base).norm() / base.norm()) < (0.5 if interpolated else 1e-4)


@pytest.mark.parametrize("name", SMALL)
def test_a_training_that_was_stopped_ends_with_the_same_weights(name, tmp_path):
    whole = finish(operator_trainer(architecture=made(name)))
    stopped = operator_trainer(architecture=made(name))
    for _ in stopped.run(lambda: 15 if stopped.progress.step == 4 else 0):
        pass
    save(stopped, tmp_path / "stopped")
    resumed = finish(load(operator_trainer(architecture=made(name)), tmp_path / "stopped"))
    save(whole, tmp_path / "whole")
    save(resumed, tmp_path / "resumed")
    first, second = (load_tensors(tmp_path / part)[0] for part in ("whole", "resumed"))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert all(key.split(".")[0] == name for key in whole.best)


@pytest.mark.parametrize("name", SMALL)
def test_declared_costs_are_those_of_the_products(name):
    """Against torch's own count of the default size, within a factor of 2.5: the formulas leave out the smaller parts."""
    settings = architecture_of({"architecture": name})
    network = NeuralOperator(settings, (Space(square(32)),) * 2, UNIT, UNIT)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 32, 32))
    assert 0.4 < settings.flops(32) / counter.get_total_flops() < 2.5


def test_a_convolution_onto_another_grid_gives_the_same_function():
    """Half as many nodes are every second one; of twice as many every second is one of those."""
    torch.manual_seed(0)
    half, same, twice = (HermitianSpectralConv(3, 2, (8, 8), resolution_scaling_factor=scale) for scale in (0.5, 1.0, 2.0))
    for other in (half, twice):
        other.load_state_dict(same.state_dict())
    x = torch.randn(2, 3, 24, 20)
    expected = same(x)
    assert torch.allclose(half(x), expected[..., ::2, ::2], atol=1e-5)
    assert torch.allclose(twice(x)[..., ::2, ::2], expected, atol=1e-5)
    assert same(x, output_shape=(15, 11)).shape == (2, 2, 15, 11)


def test_a_line_has_all_architectures():
    line = Space(Grid((24,), (True,), (1.0,)))
    assert all(operator(name, (line, line))(torch.zeros(3, 24)).shape == (3, 24) for name in SMALL)


def test_versions_are_stored_for_all_architectures():
    stored = json.loads(Path(__file__).with_name("versions.json").read_text())
    assert {name for name in SMALL if any(name in result["version"] for result in stored.values())} == set(SMALL)
