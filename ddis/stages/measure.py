"""Seconds and memory of one step on this device, of untrained networks: what `ddis cost` estimates hours from.

A step is timed on as many fields of its batch as the free memory allows and as take about `PATIENCE` seconds, and is scaled to
the batch. What does not fit is not run.
"""

import math
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ddis.config import Case, Study
from ddis.models.ids import ModelId
from ddis.models.normalisation import Normalisation
from ddis.models.operator import NeuralOperator
from ddis.operators.base import Operator
from ddis.operators.network import Network
from ddis.operators.solver import Solver
from ddis.pde.base import Problem
from ddis.posterior import Posterior
from ddis.priors import Prior, gaussian, mixture
from ddis.priors.gaussian import of_spectrum
from ddis.randomness import generator
from ddis.sampling.base import Evaluations, Method, Size
from ddis.sampling.methods import load_method
from ddis.stages.common import resolve_device
from ddis.stages.needs import JACOBIAN_FIELDS, TENSORS
from ddis.timing import PATIENCE, clock, free_memory, kept_bytes, seconds_of
from ddis.trained import noise_of, prior_channels, untrained
from ddis.training.acceleration import accelerate
from ddis.training.loop import Trainer

LONGEST = 10.0  # seconds that a first step may take; later ones are meant to take `PATIENCE`
SHARE = 0.5  # of the free memory
COPIES = 6  # of the weights in a training: they, their gradient, two of Adam, the average and the best one
EXAMPLES = 8  # fields that units are estimated on
FEWEST_STEPS = 10  # of a sampler, for a guess at its first


@dataclass(frozen=True)
class Timed:
    """bytes of memory; seconds for the whole batch, None where nothing was run; fields that were run, of `batch`."""

    bytes: float
    seconds: float | None = None
    fields: int = 0
    batch: int = 1


@dataclass(frozen=True)
class NetworkCost:
    """Of a network.

    kept     bytes for the gradient, of one field; fixed: those of any number of fields, such as weights multiplied out
    forward  seconds of one evaluation of one field, None if it does not fit
    """

    network: nn.Module
    parameters: int
    kept: float
    forward: float | None
    step: Timed
    fixed: float = 0.0


@dataclass(frozen=True)
class Example:
    """A problem's units, from a few of its fields, and the seconds that its solver takes for one."""

    problem: Problem
    scales: dict[str, Normalisation]
    solve: float


def example(study: Study, name: str) -> Example:
    problem = study.make_problem(name)
    spaces = problem.spaces(study.data.resolution)
    a = problem.sample_coefficients(range(EXAMPLES), study.data.resolution, study.seed)
    begin = time.perf_counter()
    u = problem.solve(a)
    seconds = (time.perf_counter() - begin) / EXAMPLES
    fields = {"coefficient": problem.relax(a), "solution": u}
    scales = {name: Normalisation.of(fields[name].numpy(), space) for name, space in zip(fields, spaces, strict=True)}
    return Example(problem, scales, seconds)


def network_cost(study: Study, name: str, model: ModelId, units: Example) -> NetworkCost:
    """Parameters, memory and times of a network, and of a step of its training."""
    device, training = resolve_device(study.device), study.training(model)
    with torch.device("meta"):  # no memory
        network = untrained(study, name, model, units.scales)
    parameters, free = sum(p.numel() for p in network.parameters()), SHARE * free_memory(device)
    weights = COPIES * 4 * parameters
    values = max(math.prod(shape) for shape in units.problem.shapes(study.data.resolution))
    guess = TENSORS * 4 * study.section(model).finest * values
    if weights + guess > free:
        return NetworkCost(network, parameters, guess, None, Timed(weights + training.batch * guess, batch=training.batch))
    network = untrained(study, name, model, units.scales).to(device)
    one, two = (kept_bytes(partial(evaluate, study, network, model, units, fields), network) for fields in (1, 2))
    kept, fixed = two - one, 2 * one - two
    axes = len(units.problem.coefficient_space(study.data.resolution).grid.shape)
    trained = kept * (study.training_resolution(model) / study.data.resolution) ** axes  # of a field of the training

    def step(fields: int) -> Callable[[], Any]:
        rows = trainer(study, name, network, model, units, fields).run()
        return lambda: next(rows)

    alone = seconds_of(step(1), device)
    fields = max(1, min(training.batch, int((free - weights - fixed) / trained), int(PATIENCE / alone)))
    seconds = alone if fields == 1 else seconds_of(step(fields), device)
    network.eval().requires_grad_(False)
    forward = seconds_of(lambda: evaluate(study, network, model, units, fields), device) / fields
    timed = Timed(weights + fixed + training.batch * trained, seconds * training.batch / fields, fields, training.batch)
    return NetworkCost(network, parameters, kept, forward, timed, fixed)


def evaluate(study: Study, network: nn.Module, model: ModelId, units: Example, fields: int) -> Tensor:
    """One evaluation of random fields."""
    device, size = next(network.parameters()).device, study.data.resolution
    space = units.problem.coefficient_space(size)
    if isinstance(network, NeuralOperator):
        return network.forward_normalised(torch.randn(fields, *space.shape, device=device))
    x = torch.randn(fields, prior_channels(units.problem.spaces(size), model), *space.grid.shape, device=device)
    denoised: Tensor = network(x, torch.ones(fields, device=device))
    return denoised


def trainer(study: Study, name: str, network: nn.Module, model: ModelId, units: Example, fields: int) -> Trainer:
    """The training of a network, on a batch of random fields, without validation."""
    device, size = next(network.parameters()).device, study.training_resolution(model)
    training = study.training(model).model_copy(update={"batch": fields, "compile": False, "steps": 3})
    spaces = units.problem.spaces(size)
    if isinstance(network, NeuralOperator):
        a = units.problem.sample_coefficients(range(fields), size, study.seed).float()
        pairs = units.scales["coefficient"].normalise(a).to(device), torch.randn(fields, *spaces[1].shape, device=device)
        settings = study.operator_section(model)
        loss, part = settings.training_loss(network, pairs, pairs[0], units.problem, study.seed, fields), "network"
    else:
        x = torch.randn(fields, prior_channels(units.problem.spaces(size), model), *spaces[0].grid.shape, device=device)
        noise = noise_of(study.noise_of(model), spaces[0].grid.basis, model.white)
        loss, part = study.prior_section(model).training_loss(network, x, noise, study.seed, 0), "backbone"
    accelerate(getattr(network, part), training)
    return Trainer(network, loss, lambda _: 0.0, fields, training, study.seed, deepcopy(network))


@dataclass(frozen=True)
class SamplerCost:
    """Evaluations per sample; a step of a batch, and how many a batch has (None: no step was run).

    seconds: of the whole run, from the steps, or from the evaluations where none was run; None: a network does not fit.
    """

    evaluations: Evaluations
    step: Timed
    steps: int | None
    seconds: float | None


@dataclass(frozen=True)
class Stepped:
    """Seconds of what comes before the first step of a sampler, and of the second; how many steps it has.

    share: of the step's evaluations of the operator that its method says it makes. Of an untrained operator, conjugate gradients
    may ask for many times as many products as of a trained one.
    """

    before: float
    seconds: float
    steps: int
    share: float


def sampler_cost(
    study: Study, case: Case, prior: NetworkCost | None, operator: NetworkCost | None, units: Example
) -> SamplerCost:
    """What a run costs at a percent, without solving the equation for its samples; prior: of the coefficient, or joint.

    Steps are timed without calls of a solver that corrects the operator, which the first steps of a sampler do not make.
    """
    device, settings = resolve_device(study.device), study.run_for(case)
    method, samples, test = load_method(settings.method)(settings), settings.samples, study.data.test
    whole, batch = run_cost(study, case, method, test), min(settings.fields_per_batch, test) * samples
    batch = batch if method.ensemble else min(batch, settings.batch)
    of_prior, of_operator = (0.0 if network is None else network.forward for network in (prior, operator))
    if operator is None and method.uses_operator:
        of_operator = units.solve
    kept = [0.0 if network is None else network.kept for network in (prior, operator)]
    weights = sum(4 * network.parameters + network.fixed for network in (prior, operator) if network is not None)

    def memory(fields: int, chains: int) -> float:
        cost = run_cost(study, case, method, fields)
        return weights + cost.memory + max(chains * (2 * kept[0] + kept[1]), min(JACOBIAN_FIELDS, cost.shared) * kept[1])

    if of_prior is None or of_operator is None:
        return SamplerCost(whole, Timed(memory(test, batch), batch=batch), None, None)
    one = run_cost(study, case, method, 1)
    chain, shared = one.prior * of_prior + one.operator * of_operator, one.shared * of_operator
    solved = test * samples * whole.solver * units.solve
    guess = test * samples * chain + whole.shared * of_operator + solved
    fewest = samples if method.ensemble or method.closed_form else 1  # a closed form takes as long for one as for all
    free = SHARE * free_memory(device)
    if shared > LONGEST or chain * fewest > FEWEST_STEPS * LONGEST or memory(1, fewest) > free:
        return SamplerCost(whole, Timed(memory(test, batch), batch=batch), None, guess)
    fields, chains = 1, fewest
    found = sampler_step(study, case, method, (prior, operator), units, fields, chains)
    most = min(batch, int(fewest * PATIENCE / found.seconds))
    more = (most // samples, most // samples * samples) if most >= samples else (1, most)
    if more[1] > fewest and memory(*more) < free:
        fields, chains = more
        found = sampler_step(study, case, method, (prior, operator), units, fields, chains)
    before, step = found.before, found.seconds * found.share
    before *= whole.shared / run_cost(study, case, method, fields).shared if whole.shared else 1
    seconds = before + found.steps * step * test * samples / chains + solved
    return SamplerCost(whole, Timed(memory(test, batch), step * batch / chains, chains, batch), found.steps, seconds)


def run_cost(study: Study, case: Case, method: Method[Any], fields: int) -> Evaluations:
    """What a run on so many fields costs, as its method says."""
    problem = study.make_problem(case.problem)
    nodes = math.prod(problem.shapes(study.data.resolution)[0])
    return method.cost(Size(study.observed(case.problem, case.observation), nodes, fields, problem.linear, problem.is_gaussian))


def sampler_step(
    study: Study,
    case: Case,
    method: Method[Any],
    networks: tuple[NetworkCost | None, NetworkCost | None],
    units: Example,
    fields: int,
    chains: int,
) -> Stepped:
    """A step of `chains` chains of so many fields."""
    device, placed = resolve_device(study.device), study.placed(case.problem, case.observation)
    chosen = np.stack([placed.draw(study.seed, number)[0] for number in range(fields)])
    posterior = Posterior(
        units.problem,
        untrained_prior(study, method, networks[0], units),
        untrained_operator(networks[1], units),
        placed.sensors,
        np.zeros(chosen.shape),
        chosen=chosen,
        seed=study.seed,
        device=device,
    )
    begin = clock(device)
    prepared, cost = posterior.prepare(method)
    before = clock(device) - begin
    generators = [generator(study.seed, "cost", number) for number in range(chains)]
    times, made, steps = [clock(device)], [cost.operator], 1
    for state in islice(method.sample(posterior.batch(method, slice(None), generators, cost), prepared), 2):
        times.append(clock(device))
        made.append(cost.operator)
        steps = state.steps
    expected, found = chains * run_cost(study, case, method, fields).operator / steps, made[-1] - made[-2]
    return Stepped(before, times[-1] - times[-2], steps, min(1.0, expected / found) if found else 1.0)


def untrained_prior(study: Study, method: Method[Any], network: NetworkCost | None, units: Example) -> Prior:
    """A prior that computes what the run's own does."""
    problem, space = units.problem, units.problem.coefficient_space(study.data.resolution)
    kind = method.prior or "coefficient"
    model = ModelId("prior" if kind == "coefficient" else kind)
    noise = noise_of(study.noise_of(model), space.grid.basis, method.noise == "white")
    if method.closed_form:
        return (gaussian if problem.is_gaussian else mixture)(problem, noise, units.scales["coefficient"].without_mean)
    mean, spectrum = torch.zeros(space.shape, dtype=torch.float64), torch.ones(space.shape, dtype=torch.float64)
    if network is None:
        return of_spectrum(space.grid.basis, mean, spectrum, units.scales["coefficient"], noise)
    solution = None if kind == "coefficient" else units.scales["solution"]
    return Prior(network.network, noise, units.scales["coefficient"], mean, spectrum, solution, kind=kind)


def untrained_operator(network: NetworkCost | None, units: Example) -> Operator:
    scale = units.scales["solution"]
    return Solver(units.problem, scale) if network is None else Network(network.network, scale)
