"""The physics loss: zero for solutions of the equation, right gradients, the boundary by hand, reproducible batches."""

import numpy as np
import physics_loss
import pytest
import torch
from torch import Tensor
from trainings import SETTINGS, finish, load, save, study_with_data

from ddis.config import Study
from ddis.errors import InputError
from ddis.grid import Grid, square
from ddis.models.architectures.fno import FNO
from ddis.models.checkpoint import load_tensors
from ddis.models.normalisation import Normalisation
from ddis.models.operator import NeuralOperator
from ddis.pde import make_problem
from ddis.pde.dirichlet import zero_boundary
from ddis.stages import pairs as pairs_stage
from ddis.stages import train
from ddis.training import regression
from ddis.training.loop import Trainer, batch_indices
from ddis.training.physics import Equation, boundary_term, residual_term, training_loss
from ddis.training.settings import PhysicsSettings

SIZE = 12
PROBLEMS = ("poisson", "helmholtz", "darcy", "darcy-source", "poisson-l-shape")
BOTH = PhysicsSettings(pde=0.3, boundary=2.0)


def pairs(name: str, count: int, **parameters: float) -> tuple[Tensor, Tensor]:
    problem = make_problem(name, parameters)
    a = problem.sample_coefficients(range(count), SIZE, 0)
    return a, problem.solve(a)


@pytest.mark.parametrize(("name", "parameters"), [*((name, {}) for name in PROBLEMS), ("poisson", {"aspect": 1.5})])
def test_both_terms_of_an_exact_discrete_solution_are_zero(name, parameters):
    """Round-off: second differences lose (S-1)² digits of u; darcy's iteration stops at 1e-10."""
    a, u = pairs(name, 3, **parameters)
    problem = make_problem(name, parameters)
    assert float(residual_term(problem, a, u).max()) < 1e-8
    assert float(boundary_term(problem.solution_space(SIZE).grid, u).max()) == 0


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_residual_of_nothing_is_that_of_the_source(name):
    """1 for û = 0, and 1/2 for half a solution of an equation that is linear in u."""
    a, u = pairs(name, 3)
    problem = make_problem(name, {})
    for share, expected in ((0.0, 1.0), (0.5, 0.5)):
        assert residual_term(problem, a, share * u).numpy() == pytest.approx(expected, rel=1e-8)


def test_the_residual_of_poisson_by_hand():
    """u = x (1 - x) has the Laplacian -2 at every interior node, on any grid."""
    x = torch.linspace(0, 1, SIZE, dtype=torch.float64)
    u = (x * (1 - x))[:, None].expand(SIZE, SIZE)
    a = torch.full((1, SIZE, SIZE), 4.0, dtype=torch.float64)
    assert float(residual_term(make_problem("poisson", {}), a, u[None])) == pytest.approx(6 / 4)


@pytest.mark.parametrize("name", PROBLEMS)
def test_gradients_are_those_of_finite_differences(name):
    a, u = pairs(name, 2)
    problem, grid = make_problem(name, {}), make_problem(name, {}).solution_space(SIZE).grid
    rng = torch.Generator().manual_seed(0)
    start = u + u.std() * torch.randn(u.shape, generator=rng, dtype=torch.float64)
    direction = u.std() * torch.randn(u.shape, generator=rng, dtype=torch.float64)

    def terms(field: Tensor) -> Tensor:
        return (residual_term(problem, a, field) + boundary_term(grid, field)).sum()

    start.requires_grad_(True)
    (gradient,) = torch.autograd.grad(terms(start), start)
    with torch.no_grad():
        slope = (terms(start + 1e-4 * direction) - terms(start - 1e-4 * direction)) / 2e-4
    assert float((gradient * direction).sum()) == pytest.approx(float(slope), rel=1e-6)


def test_the_boundary_term_by_hand():
    """Sides of 3 x 4 nodes with u = 1, 2, 3 ... 12 along rows: norms of (1, 2, 3, 4), (9 ... 12), (1, 5, 9), (4, 8, 12)."""
    u = torch.arange(1.0, 13.0, dtype=torch.float64).reshape(1, 3, 4)
    grid = Grid((3, 4), (False, False), (1.0, 1.0))
    squares = [1 + 4 + 9 + 16, 81 + 100 + 121 + 144, 1 + 25 + 81, 16 + 64 + 144]
    assert float(boundary_term(grid, u)) == pytest.approx(np.mean(np.sqrt(squares)))


def test_sides_of_a_part_of_a_square_are_all_its_boundary():
    grid = make_problem("poisson-l-shape", {}).solution_space(SIZE).grid
    found = grid.sides
    assert len(found) == 5
    assert np.array_equal(np.any(found, axis=0), grid.nodes & ~grid.interior)
    assert not (found[4] & np.any(found[:4], axis=0)).any()


@pytest.mark.parametrize("name", ["navier-stokes", "burgers"])
def test_where_the_residual_is_a_pair_it_is_refused(name):
    problem = make_problem(name, {})
    with pytest.raises(InputError, match="which is a pair"):
        PhysicsSettings(pde=0.1).check(problem, problem.solution_space(SIZE).grid)


def test_a_boundary_term_without_a_boundary_is_refused():
    with pytest.raises(InputError, match="boundary"):
        PhysicsSettings(boundary=0.1).check(make_problem("poisson", {}), square(SIZE, periodic=True))


def trainer(settings: PhysicsSettings, places: slice = slice(None)) -> Trainer:
    """Of six pairs and fourteen coefficients more."""
    torch.manual_seed(0)
    a, u = (field.float() for field in pairs("poisson", 20))
    problem = make_problem("poisson", {})
    spaces, scales = problem.spaces(SIZE), (Normalisation(0.0, float(a.std())), Normalisation(0.0, float(u.std())))
    network, average = (NeuralOperator(FNO(modes=4, width=4, layers=2), spaces, *scales) for _ in range(2))
    a, u = (scale.normalise(field) for scale, field in zip(scales, (a, u), strict=True))
    few, equation = (a[:6], u[:6]), Equation(problem, spaces[1].grid, settings)
    loss = training_loss(network, few, a, equation, 3, SETTINGS.batch, places)
    return Trainer(network, loss, regression.validation_loss(*few), 6, SETTINGS, 3, average)


def value(trainer: Trainer, indices: np.ndarray) -> float:
    """The loss of the first step."""
    return float(trainer.loss(indices, 0).detach())


def test_stopped_and_resumed_gives_the_weights_of_an_unbroken_run(tmp_path):
    torch.set_num_threads(1)
    unbroken, first = finish(trainer(BOTH)), trainer(BOTH)
    for record in first.run():
        if record.step == 4:
            break
    save(first, tmp_path / "checkpoint")
    second = finish(load(trainer(BOTH), tmp_path / "checkpoint"))
    expected, found = unbroken.state()[0], second.state()[0]
    assert expected.keys() == found.keys() and all(torch.equal(expected[name], found[name]) for name in expected)


def test_parts_of_a_batch_have_the_mean_loss_of_the_whole():
    """What several processes compute is what one does, up to the rounding of float32."""
    indices = batch_indices(3, 0, SETTINGS.batch, 6)
    parts = [value(trainer(BOTH, places), indices[places]) for places in (slice(0, 2), slice(2, 4))]
    assert np.mean(parts) == pytest.approx(value(trainer(BOTH), indices), rel=1e-5)


def test_without_weights_the_loss_is_that_of_the_pairs():
    """Up to rounding: fields of a larger batch may be summed in another order."""
    made, (a, u) = trainer(PhysicsSettings()), (field.float() for field in pairs("poisson", 6))
    model = made.model
    assert isinstance(model, NeuralOperator)
    alone = regression.training_loss(model, model.coefficient.normalise(a), model.solution.normalise(u))
    indices = np.array([0, 3, 5, 1])
    assert value(made, indices) == pytest.approx(float(alone(indices, 0).detach()), rel=1e-5)


def test_unpaired_coefficients_are_other_than_the_pairs_of_the_step():
    """Also at 100 % of the pairs, where both are drawn from the same fields."""
    steps = [(batch_indices(0, step, 8, 100), batch_indices(0, step, 8, 100, "unpaired")) for step in range(5)]
    assert not any(np.array_equal(*both) for both in steps)


STUDY = {
    "study": "physics",
    "problems": {"poisson": {"pde": "poisson"}, "ns": {"pde": "navier-stokes"}},
    "data": {"resolution": 16, "train": 8, "validation": 4, "test": 2},
    "fractions": [0.5],
    "observations": {"sparse": {"count": 5}},
    "operator": {"network": {"width": 4}},
    "operators": {"physics": {"physics": {"pde": 0.1, "boundary": 0.1}}},
    "runs": {"ddis": None, "ddis-physics": {"method": "ddis", "operator": "physics", "problems": ["poisson"]}},
}


def test_a_run_names_an_operator_with_physics_and_the_model_is_named_after_it():
    study = Study.load(STUDY)
    assert study.models_of("ddis-physics", "50") == ["prior", "operator-physics-50"]
    section = study.operators["physics"]
    assert section.physics == PhysicsSettings(pde=0.1, boundary=0.1) and section.network == study.operator.network
    assert Study.load(study.resolved()) == study


def test_only_what_is_trained_with_physics_depends_on_it():
    study, other = Study.load(STUDY), Study.load({**STUDY, "operators": {"physics": {"physics": {"pde": 0.2}}}})
    same = {m: study.digest("train", problem="poisson", model=m) for m in ("operator-50", "operator-physics-50")}
    assert other.digest("train", problem="poisson", model="operator-50") == same["operator-50"]
    assert other.digest("train", problem="poisson", model="operator-physics-50") != same["operator-physics-50"]
    assert "physics" not in str(study.inputs("train", problem="poisson", model="operator-50"))


def test_a_study_with_physics_where_it_is_a_pair_is_refused_with_the_reason():
    runs = {"ddis-physics": {"method": "ddis", "operator": "physics"}}
    with pytest.raises(InputError, match=r"operators\.physics\.physics\.pde: 0\.1; .* which is a pair; .*'ns'"):
        Study.load({**STUDY, "runs": runs})


def test_the_preconditioned_residual_of_poisson_is_a_pair():
    """||Δ⁻¹ r(a, û)|| / ||Δ⁻¹ r(a, 0)|| = ||û - u|| / ||u|| for û that vanish on the boundary, up to round-off."""
    a, u = pairs("poisson", 4)
    rng = torch.Generator().manual_seed(0)
    guess = zero_boundary(u + u.std() * torch.randn(u.shape, generator=rng, dtype=torch.float64))
    found = residual_term(physics_loss.Preconditioned(make_problem("poisson", {})), a, guess)
    assert found.numpy() == pytest.approx(regression.relative_l2(guess, u).numpy(), rel=1e-9)


def test_weights_are_chosen_on_validation_pairs_not_on_those_that_are_reported():
    rows = [{"problem": "p", "way": "w", "validation_error": v, "error": e} for v, e in ((3.0, 1.0), (2.0, 5.0))]
    assert physics_loss.chosen(rows, "p", "w")["error"] == 5.0


def test_a_model_with_physics_is_trained_and_told_from_the_one_without(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = study_with_data(
        {**STUDY, "device": "cpu", "operator": {"network": {"width": 4}, "training": {"steps": 2, "batch": 2}}}
    )
    pairs_stage.run(study, "poisson", "50")
    found = []
    for model in ("operator-50", "operator-physics-50"):
        train.run(study, "poisson", model)
        weights, _ = load_tensors(study.folder / "models" / "poisson" / model / "weights.safetensors")
        found.append(torch.cat([torch.view_as_real(t).flatten() if t.is_complex() else t.flatten() for t in weights.values()]))
    assert found[0].shape == found[1].shape and not torch.equal(*found)
