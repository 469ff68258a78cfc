"""`operator: corrected`: the network's Jacobian, the solver's residual. The network is the solver with a tilt.

F(a) = (1 + t x) G(a): its Jacobian has the rows of G, each times a factor, so that enough calls of G reach the exact posterior.
"""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from batches import last_state, make_batch, method_of
from test_posterior import CHAINS, agrees, make_setting

import ddis
from ddis.config import Study
from ddis.data.store import read_samples
from ddis.errors import InputError
from ddis.observe.nodes import draw_nodes
from ddis.operators.error import OperatorError, operator_error_model
from ddis.operators.solver import Solver
from ddis.posterior import Posterior
from ddis.randomness import generator
from ddis.sampling.base import Size
from ddis.sampling.corrected import calls_per_level
from ddis.stages import generate, pairs, sample, tables, train
from ddis.stages.layout import samples_path

SIZE, OBSERVED = 16, 30


class Tilted(Solver):
    """F(a) = (1 + t x) G(a)."""

    def __init__(self, problem, tilt, solution=None):
        super().__init__(problem, solution)
        self.tilt = 1 + tilt * torch.linspace(0, 1, problem.resolution, dtype=torch.float64)[:, None]

    def __call__(self, coefficient):
        return super().__call__(coefficient) * self.tilt.to(coefficient)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    torch.set_num_threads(1)


def setting(pde: str, noise: float, tilt: float = 0.0):
    """Problem, prior, tilted network with its error from 20 pairs, sensors with relative noise, and observed values."""
    problem = ddis.problem(pde, resolution=SIZE, **({"coefficient": "log-normal"} if pde == "darcy" else {}))
    prior, network = ddis.prior.gaussian(problem), Tilted(problem, tilt)
    pairs = problem.sample_coefficients(range(100, 120), SIZE, 5)
    modes = problem.solution_space(SIZE).grid.basis
    if tilt:
        fields = (network.solution.normalise(solve(pairs).double()) for solve in (network, problem.solve))
        network.error = OperatorError(modes, 0.0, *operator_error_model(*fields, modes))
    index = draw_nodes(problem.solution_space(SIZE).grid, OBSERVED, 3, 0)
    sensors = ddis.observe.nodes(index, noise=noise * network.solution.std)
    values = ddis.observe.simulate(sensors, problem.solve(problem.sample_coefficients([0], SIZE, 3))[0])
    return problem, prior, network, sensors, values


def test_calls_are_spread_over_the_second_half_of_the_levels():
    assert calls_per_level(12, 11) == [0] * 5 + [2] * 6
    assert calls_per_level(2, 11) == [0] * 5 + [1, 1, 0, 0, 0, 0]
    assert calls_per_level(20, 4) == [0, 0, 10, 10] and calls_per_level(3, 1) == [3]


@pytest.mark.parametrize("noise", [1e-3, 0.3])
def test_with_the_exact_jacobian_it_is_ddis_gn_with_the_solver(noise):
    """Also where so much noise hides the solution that y + e is explained by no draw."""
    problem, prior, network, sensors, values = setting("poisson", noise)
    corrected = ddis.operator.corrected(network, ddis.operator.solver(problem))
    ours = Posterior(problem, prior, corrected, sensors, values).sample(samples=4)
    solver = Posterior(problem, prior, Solver(problem, network.solution), sensors, values).sample(samples=4)
    assert np.abs(ours.samples - solver.samples).max() < 1e-4 * np.abs(solver.samples).max()  # float32 between levels
    assert ours.misfit.ratio == pytest.approx(solver.misfit.ratio, rel=1e-2)


def test_enough_calls_reach_the_exact_posterior_with_a_wrong_jacobian():
    """One level whose noise hides where the chain came from; the negative control has no calls."""
    for calls, right in ((25, True), (0, False)):
        fresh = make_setting()
        task = fresh.task
        network = Tilted(task.problem, 0.3, Solver(task.problem).solution)
        exact, tilt = task.operator, network.tilt
        task.operator, task.solver = lambda x: exact(x) * tilt.to(x), task.cost.count_solver(exact)  # noqa: B023
        settings = {"steps": 1, "sigma_max": 1e4, "tolerance": 0.03}
        last = last_state(task, "ddis-gn", samples=CHAINS, solver_calls=calls, **settings)
        samples = fresh.modes.forward(last.x0.double()).flatten(1).numpy()
        assert agrees(samples, fresh) is right
        assert task.cost.solver <= calls * CHAINS


def test_a_chain_stops_where_its_misfit_is_that_of_the_noise():
    problem, prior, network, sensors, values = setting("poisson", 1e-3)
    stopped = Posterior(problem, prior, ddis.operator.corrected(network, Solver(problem)), sensors, values).sample(samples=2)
    assert stopped.cost.solver_calls == 6  # the exact Jacobian: one call on each of six levels says so
    problem, prior, network, sensors, values = setting("poisson", 1e-5, tilt=0.3)
    spent = Posterior(problem, prior, ddis.operator.corrected(network, Solver(problem)), sensors, values)
    assert [spent.sample(samples=2, solver_calls=n).cost.solver_calls for n in (0, 3, 12)] == [0, 3, 12]


@pytest.mark.parametrize("pde", ["poisson", "darcy", "navier-stokes"])
def test_few_calls_bring_the_solver_near_the_observations(pde):
    """Linear and not, at 1 % noise, with a network that errs by up to a fifth: the misfit falls to a quarter at most."""
    problem, prior, network, sensors, values = setting(pde, 0.01, tilt=0.2)
    posterior = Posterior(problem, prior, ddis.operator.corrected(network, Solver(problem)), sensors, values)
    without, corrected = (posterior.sample(samples=4, solver_calls=calls) for calls in (0, 8))
    assert corrected.misfit.ratio < 0.25 * without.misfit.ratio and corrected.misfit.ratio < 2.5


@pytest.mark.parametrize("settings", [{}, {"covariance": "denoiser"}, {"solver": "matrix-free"}])
def test_samples_do_not_depend_on_the_batch(settings):
    """With one Σ for all chains or each chain's own, with rows of J or products with it; chains are computed in float32."""
    problem, prior, network, sensors, values = setting("poisson", 0.01, tilt=0.2)
    posterior = Posterior(problem, prior, ddis.operator.corrected(network, Solver(problem)), sensors, values)
    together, alone = (posterior.sample(samples=3, batch=size, **settings).samples for size in (3, 1))
    assert np.allclose(together, alone, atol=1e-3 * np.abs(alone).max())


def test_a_solver_that_fails_for_one_field_loses_its_chains_only():
    """Of two fields, a and -a, the program fails for what looks like a."""
    problem, prior, network, sensors, values = setting("poisson", 0.01, tilt=0.2)
    truth = problem.sample_coefficients([0], SIZE, 3)[0].numpy()

    def program(a):
        if ((a * truth).sum(axis=(1, 2)) > 0).any():
            raise ValueError("no convergence")
        return problem.solve(torch.from_numpy(a)).numpy()

    states = []
    for solver in (ddis.operator.black_box(program), Solver(problem)):
        corrected = ddis.operator.corrected(network, solver)
        generators = [generator(1, "chain", f, k) for f in range(2) for k in range(2)]
        task = make_batch(problem, prior, corrected, sensors, np.stack([values, -values]), generators)
        states.append(last_state(task, "ddis-gn", samples=2).x0)
    failed, whole = states
    assert not bool(failed[:2].isfinite().any()) and bool(whole.isfinite().all())
    assert torch.allclose(failed[2:], whole[2:], atol=1e-4 * float(whole.abs().max()))


def test_methods_without_a_use_for_it_refuse_it_and_name_those_that_have():
    problem, prior, network, sensors, values = setting("poisson", 0.01)
    corrected = ddis.operator.corrected(network, Solver(problem))
    posterior = Posterior(problem, prior, corrected, sensors, values)
    for name, settings in (("ddis", {"weight": 1.0}), ("es-mda", {}), ("tikhonov", {}), ("exact", {})):
        with pytest.raises(InputError, match=r"corrected.*accepted: ddis-gn$"):
            posterior.check(method_of(name, **settings))
    posterior.check(method_of("prior-mean"))
    black_box = ddis.operator.black_box(lambda a: a)
    for parts in ((black_box, network), (network, lambda a: a), (corrected, network)):
        with pytest.raises(InputError, match=r"corrected: .*accepted"):
            ddis.operator.corrected(*parts)


@pytest.mark.parametrize("pde", ["poisson", "darcy"])
def test_the_cost_of_a_corrected_run_is_told_beforehand(pde: str):
    """Where no chain stops before its last call: calls of the solver as counted; of the network too where rows are shared."""
    problem, prior, network, sensors, values = setting(pde, 1e-5, tilt=0.3)
    corrected = ddis.operator.corrected(network, Solver(problem))
    spent = Posterior(problem, prior, corrected, sensors, values).sample(samples=2).cost
    method = method_of("ddis-gn", operator="corrected", samples=2)
    told = method.cost(Size(OBSERVED, SIZE**2, 1, problem.linear, problem.is_gaussian))
    assert told.solver == spent.solver_calls == 12 and told.prior == spent.prior_evaluations
    if problem.linear:  # the gradient of a row counts as two evaluations, and is one product
        assert told.operator + told.shared * 2 / 3 / 2 == spent.operator_evaluations
    else:
        assert spent.operator_evaluations <= told.operator + told.shared / 2
    assert method_of("ddis-gn", samples=2).cost(Size(OBSERVED, SIZE**2, 1, True, True)).solver == 0


def test_a_study_counts_the_calls_of_a_corrected_run(tmp_path, monkeypatch):
    """A tiny study: samples' attributes and a column of errors.csv; empty where no solver corrects anything."""
    monkeypatch.chdir(tmp_path)
    content = yaml.safe_load((Path(__file__).parent / "tiny.yaml").read_text())
    settings = {"method": "ddis-gn", "samples": 4, "steps": 3}
    runs = {"ddis-gn": settings, "corrected": settings | {"operator": "corrected", "solver_calls": 5}}
    del content["tuning"], content["joint"]["at"]
    study = Study.load(content | {"runs": runs, "fractions": [0.1]})
    for split in ("train", "validation", "test"):
        generate.run(study, "poisson", split)
    pairs.run(study, "poisson", "10")
    for model in ("prior", "operator-10"):
        train.run(study, "poisson", model)
    for case in study.cases():
        sample.run(study, **vars(case))
    drawn = [read_samples(samples_path(study, **vars(case))).attributes for case in study.cases()]
    assert [a["operator"] for a in drawn] == ["fno", "corrected"] and [a.get("solver_calls") for a in drawn] == [None, 5]
    tables.run(study)
    with (study.folder / "tables" / "errors.csv").open(newline="") as file:
        assert [row["solver_calls"] for row in csv.DictReader(file)] == ["", "5.0"]
