"""Networks, normalisation and files of fields on lines, rectangles, masked domains and of several channels."""

import h5py
import numpy as np
import pytest
import torch

from ddis.data.residual import discretisation_error
from ddis.data.store import Samples, open_pairs, read_pairs, read_samples, write_pairs, write_samples
from ddis.errors import InputError
from ddis.evaluation import metrics
from ddis.grid import Grid, Space, square
from ddis.models.architectures.fno import FNO
from ddis.models.backbones.unet import UNet
from ddis.models.edm import EDMDenoiser
from ddis.models.normalisation import Normalisation
from ddis.models.operator import NeuralOperator
from ddis.pde import make_problem

PROBLEMS = {
    "burgers": make_problem("burgers", {}),
    "darcy-source": make_problem("darcy-source", {}),
    "poisson-l-shape": make_problem("poisson-l-shape", {}),
    "rectangle": make_problem("poisson", {"aspect": 3.0}),
}
SMALL = UNet(channels=(8, 8), blocks=(1, 1), embedding=8)


@pytest.fixture(scope="module", params=PROBLEMS)
def made(request):
    """Problem, and four of its pairs at S = 16."""
    problem = PROBLEMS[request.param]
    a = problem.sample_coefficients(range(4), 16, seed=0)
    return problem, a, problem.solve(a)


def operator(spaces: tuple[Space, Space], scales: tuple[Normalisation, Normalisation]) -> NeuralOperator:
    torch.manual_seed(0)
    return NeuralOperator(FNO(modes=6, width=4, layers=2), spaces, *scales).eval()


def test_operators_take_coefficients_to_solutions_and_have_gradients(made):
    problem, a, u = made
    spaces = problem.spaces(16)
    network = operator(spaces, (Normalisation.of(a.numpy(), spaces[0]), Normalisation.of(u.numpy(), spaces[1])))
    point = a.float().requires_grad_()
    found = network(point)
    assert found.shape == u.shape
    (gradient,) = torch.autograd.grad(found.square().sum(), point)
    assert gradient.isfinite().all() and (gradient != 0).any()
    if spaces[1].grid.mask is not None:
        outside = found[:, torch.from_numpy(~spaces[1].grid.mask)]
        assert outside.abs().max() < 1e-6 * u.abs().max()


def test_an_operator_on_a_periodic_line_commutes_with_shifts_and_sees_fourier_modes_alone():
    """The FNO on a line, without its coordinates: against a shifted field; and of the modes that it keeps."""
    line = Space(Grid((32,), (True,), (1.0,)))
    network = operator((line, line), (Normalisation(0.0, 1.0), Normalisation(0.0, 1.0)))
    network.fno.positional_embedding = None
    network.fno.lifting = torch.nn.Conv1d(1, 4, 1)
    x = torch.randn(2, 32)
    assert torch.allclose(network(x.roll(5, -1)), network(x).roll(5, -1), atol=1e-5)
    conv = network.fno.fno_blocks.convs[0]
    high = torch.cos(2 * torch.pi * 9 * torch.arange(32) / 32).expand(1, 4, 32)  # of modes=6, those up to 3 are kept
    assert (conv(high) - conv(torch.zeros_like(high))).abs().max() < 1e-5


def test_grids_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="16 x 16 nodes, solutions on 8 x 8"):
        operator((Space(square(16)), Space(square(8))), (Normalisation(0.0, 1.0),) * 2)


def test_denoisers_on_the_coefficients_grid(made):
    problem, a, _ = made
    space = problem.coefficient_space(16)
    denoiser = EDMDenoiser(SMALL.build(space.channels, space.grid))
    x = space.channelled(a.float())
    assert denoiser(x, torch.ones(4)).shape == (4, space.channels, *space.grid.shape)
    assert torch.allclose(denoiser(x, torch.full((4,), 1e-6)), x, atol=1e-4)  # without noise it leaves a field as it is


def test_each_channel_is_normalised_by_itself_and_masked_nodes_do_not_count(made):
    problem, a, _ = made
    space = problem.coefficient_space(16)
    scale = Normalisation.of(a.numpy(), space)
    x = scale.normalise(a)
    inside = space.channelled(x)[..., torch.from_numpy(space.grid.nodes)]
    assert inside.mean(dim=(0, 2)).abs().max() < 1e-12
    assert inside.std(dim=(0, 2), correction=0).numpy() == pytest.approx(0.5)
    assert torch.allclose(scale.restore(x), a) and torch.allclose(x * scale.unit, scale.restore(x) - scale.restore(0 * x))


def test_files_of_pairs_and_samples_keep_shapes_and_say_their_version(made, tmp_path):
    problem, a, u = made
    write_pairs(tmp_path / "pairs.h5", a.numpy(), u.numpy(), {"pde": "x"})
    pairs = read_pairs(tmp_path / "pairs.h5", problem.shapes(16), 4)
    assert np.array_equal(pairs.coefficient, a.float()) and np.array_equal(pairs.solution, u.float())
    with pytest.raises(InputError, match=r"16.* nodes, the study .*17"), open_pairs(tmp_path / "pairs.h5", problem.shapes(17)):
        pass
    truth, solution = a.float().numpy(), u.float().numpy()
    seen = np.zeros(u.shape, bool)
    samples = Samples(np.stack([truth] * 2, 1), truth, truth, truth, solution, seen, 0 * solution, np.stack([solution] * 2, 1))
    write_samples(tmp_path / "samples.h5", samples)
    assert np.array_equal(read_samples(tmp_path / "samples.h5").coefficient, samples.coefficient)
    square_fields = a.shape[1:] == u.shape[1:] == (16, 16)
    for name in ("pairs.h5", "samples.h5"):
        with h5py.File(tmp_path / name) as file:
            assert file.attrs["format_version"] == (1 if square_fields else 2)
    samples.mean = samples.mean[:, :-1]
    with pytest.raises(InputError, match=r"mean .* does not fit"):
        write_samples(tmp_path / "wrong.h5", samples)


def test_errors_of_channels_are_their_root_mean_square_and_masked_nodes_change_nothing():
    truth, estimate = np.ones((2, 2, 4, 4)), np.ones((2, 2, 4, 4))
    estimate[0, 0], estimate[0, 1] = 1.3, 0.6
    truth[:, 1], estimate[:, 1] = 100 * truth[:, 1], 100 * estimate[:, 1]
    space = Space(square(4), channels=2)
    assert metrics.relative_l2(estimate, truth, space) == pytest.approx([np.sqrt((0.3**2 + 0.4**2) / 2), 0.0])
    line = Space(Grid((5,), (True,), (1.0,)))
    assert metrics.relative_l2(np.full((3, 5), 1.2), np.ones((3, 5)), line) == pytest.approx([0.2] * 3)
    corner = PROBLEMS["poisson-l-shape"].coefficient_space(8).grid
    inside = np.random.default_rng(0).standard_normal((2, int(corner.mask.sum())))
    whole = np.zeros((2, 8, 8))
    whole[:, corner.mask] = inside
    expected = np.linalg.norm(inside[0] - inside[1]) / np.linalg.norm(inside[1])
    assert metrics.relative_l2(whole[0], whole[1], Space(corner)) == pytest.approx(expected)


@pytest.mark.parametrize("grid", [Grid((32,), (True,), (1.0,)), Grid((48, 16), (True, True), (3.0, 1.0))], ids=str)
def test_power_is_in_the_ring_of_its_wavenumber(grid):
    """A wave of 5 periods per unit length is in the ring from 5 to 6, whatever the length of its axis, and nowhere else."""
    wave = np.cos(2 * np.pi * 5 * grid.coordinates()[0])
    field = wave if len(grid.shape) == 1 else np.repeat(wave[:, None], grid.shape[1], axis=1)
    power = metrics.ring_power(field, Space(grid))
    assert len(power) == min(grid.shape) // 2 - 1 == len(metrics.ring_wavenumbers(Space(grid)))
    assert power.argmax() == 4 and power[np.arange(len(power)) != 4].max() < 1e-20 * power[4]


def test_half_the_spacing_tells_the_error_of_the_solver():
    """Second order: a quarter of it, for coefficients that are smooth on both grids. None for an L-shape of another size."""
    for name in ("burgers", "rectangle", "poisson-l-shape"):
        problem = PROBLEMS[name]
        errors = []
        for resolution in (65, 129):
            grid = problem.coefficient_space(resolution).grid
            waves = [torch.from_numpy(np.sin(2 * np.pi * axis)) for axis in grid.coordinates()]
            field = waves[0] if len(waves) == 1 else waves[0][:, None] * waves[1]
            errors.append(discretisation_error(problem, problem.constrain(field)[None]))
        assert errors[1] is not None and 3 < errors[0] / errors[1] < 5, (name, errors)
    corner = PROBLEMS["poisson-l-shape"]
    assert discretisation_error(corner, corner.sample_coefficients([0], 16, seed=0)) is None
