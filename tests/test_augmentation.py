"""Augmentation keeps the distribution of fields: what a problem says of its symmetries is true, of coefficients and of pairs."""

from itertools import product

import numpy as np
import pytest
import torch
from test_versions import STUDY
from trainings import denoiser_trainer

from ddis.config import Study
from ddis.errors import InputError
from ddis.pde import PROBLEMS, make_problem
from ddis.pde.base import symmetries_of
from ddis.pde.poisson import Poisson
from ddis.training import denoising
from ddis.training.augmentation import Augmentation

SIZE = 12
CASES = {name: {} for name in PROBLEMS.builtin} | {"rectangle": {"aspect": 2.0}}
OF_PAIRS = ["poisson", "poisson-squared", "helmholtz", "darcy", "darcy-source", "rectangle"]


def problem(name):
    return make_problem("poisson" if name == "rectangle" else name, CASES[name])


def images(x, symmetries):
    """All of [..., *nodes] under the group that the symmetries generate, shifts by some nodes."""
    axes = [-1 - axis for axis in range(2 if "transposition" in symmetries or x.ndim > 2 else 1)]
    reversals = product(*[(False, True)] * len(axes)) if "flips" in symmetries else [(False,) * len(axes)]
    for reverse, exchange in product(reversals, (False, True) if "transposition" in symmetries else (False,)):
        image = x.flip([axis for axis, yes in zip(axes, reverse, strict=True) if yes])
        yield image.mT if exchange else image
        if "shifts" in symmetries:
            yield (image.mT if exchange else image).roll([3, 5][: len(axes)], axes)


@pytest.mark.parametrize("name", CASES)
def test_gaussian_coefficients_have_the_same_covariance_under_their_symmetries(name):
    """In closed form: the covariance Qᵀ C Q of nodes and that of moved nodes, to round-off."""
    made = problem(name)
    symmetries = symmetries_of(made, pairs=False)
    spectrum = made.latent_spectrum(SIZE)
    if not symmetries:
        assert name in ("poisson-l-shape", "darcy-facies")
        return
    grid = made.coefficient_space(SIZE).grid
    spectrum = spectrum.reshape(-1, *grid.shape)[0]
    unit = torch.eye(spectrum.numel(), dtype=torch.float64).reshape(-1, *grid.shape)
    covariance = grid.basis.inverse(spectrum * grid.basis.forward(unit)).flatten(1)
    for moved in images(unit, symmetries):  # P: P C Pᵀ = C
        move = moved.flatten(1)
        assert torch.allclose(move @ covariance @ move.T, covariance, atol=1e-10 * float(covariance.max()))


@pytest.mark.parametrize("name", OF_PAIRS)
def test_the_solution_of_a_moved_coefficient_is_moved_as_it_is(name):
    """Up to what the solvers leave: direct ones round, conjugate gradients stop at 1e-10."""
    made = problem(name)
    a = made.sample_coefficients(range(2), SIZE, seed=0)
    u = made.solve(a)
    symmetries = symmetries_of(made, pairs=True)
    assert "flips" in symmetries and ("transposition" in symmetries) == (name != "rectangle")
    for moved, expected in zip(images(a, symmetries), images(u, symmetries), strict=True):
        assert torch.allclose(made.solve(moved), expected, atol=1e-7 * float(u.abs().max()))
    for moved, expected in zip(images(a, symmetries), images(made.relax(a), symmetries), strict=True):
        assert torch.allclose(made.relax(moved), expected)


def test_pairs_of_navier_stokes_have_no_such_symmetry():
    """A negative control: its solutions do not move with the coefficient."""
    made = problem("navier-stokes")
    assert symmetries_of(made, pairs=True) == frozenset()
    a = made.sample_coefficients(range(1), 16, seed=0)
    u = made.solve(a)
    for moved, expected in list(zip(images(a, {"flips"}), images(u, {"flips"}), strict=True))[1:]:
        assert float((made.solve(moved) - expected).norm() / u.norm()) > 0.1


def test_fields_are_moved_with_the_probability_that_is_set_and_every_element_is_as_probable():
    """4,000 fields, p = 0.5, eight elements of which the identity is one: five standard errors, 5 sqrt(4000 / 16) = 80 of 250."""
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    moved = Augmentation(0.5, {"flips", "transposition"}, seed=0)(x.expand(4000, -1, -1, -1), step=3)
    elements = {tuple(image.flatten().tolist()): 0 for image in images(x[0, 0], {"flips", "transposition"})}
    assert len(elements) == 8
    for field in moved:
        elements[tuple(field.flatten().tolist())] += 1
    identity = elements.pop(tuple(x.flatten().tolist()))
    assert abs(identity - 2250) < 5 * np.sqrt(4000 / 4) and all(abs(count - 250) < 80 for count in elements.values())


def test_what_is_drawn_depends_on_seed_step_and_place_alone():
    x = torch.randn(6, 2, 5, 5, generator=torch.Generator().manual_seed(0))
    move = Augmentation(0.7, {"flips", "transposition", "shifts"}, seed=1)
    whole = move(x, step=4)
    assert torch.equal(whole[2:], move(x[2:], step=4, first=2))
    assert not torch.equal(whole, move(x, step=5)) and not torch.equal(whole, Augmentation(0.7, move.symmetries, 2)(x, 4))


def test_the_training_loss_is_that_of_the_moved_fields():
    data = torch.randn(4, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    noise = type("Zero", (), {"sample": lambda self, shape, generators, device: torch.zeros(shape)})()
    move, indices = Augmentation(1.0, {"flips"}, seed=0), np.arange(4)
    model = denoiser_trainer().model.eval()
    found = denoising.training_loss(model, data, noise, (-1.2, 1.2), 0, augmentation=move)(indices, 2)
    expected = denoising.training_loss(model, move(data, 2), noise, (-1.2, 1.2), 0)(indices, 2)
    assert torch.equal(found, expected)
    assert not torch.equal(found, denoising.training_loss(model, data, noise, (-1.2, 1.2), 0)(indices, 2))


class OtherSources(Poisson):
    """Sources that are larger on one side."""

    def sample_coefficients(self, indices, resolution, seed):
        return super().sample_coefficients(indices, resolution, seed) * torch.linspace(1, 2, resolution)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"problems": {"poisson": {"pde": "poisson-l-shape"}}},
            r"prior\.augmentation 0\.12: the coefficients of problem 'poisson'",
        ),
        ({"problems": {"poisson": {"pde": "test_augmentation:OtherSources"}}}, r"have no known symmetry; accepted: 0, or runs\."),
        (
            {"problems": {"flow": {"pde": "navier-stokes"}}, "joint": {"augmentation": 0.12}},
            r"joint\.augmentation 0\.12: the pairs",
        ),
        ({"prior": {"augmentation": 1.5}}, r"prior\.augmentation"),
    ],
)
def test_augmentation_is_refused_where_the_distribution_is_not_known_to_keep(change, message):
    study = {key: value for key, value in STUDY.items() if key not in ("operators", "joint", "prior")}
    study["runs"] = {"ddis-gn": {}, "fundps": {}}
    with pytest.raises(InputError, match=message):
        Study.load({**study, "prior": {"augmentation": 0.12}, **change})
    Study.load({**study, "prior": {"augmentation": 0.12}, "joint": {"augmentation": 0.12}})
