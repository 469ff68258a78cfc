"""Memory and time that the jobs of a study ask a cluster for, from the sizes in its configuration.

Estimates on the safe side, not predictions. A job that is stopped at its limit goes on from its checkpoint when it is submitted
again, so that a wrong estimate costs a start and no work. `study.device: cpu` means that networks are computed on the CPU.
"""

import math
from collections.abc import Callable

from ddis.config import Case, Study
from ddis.data.store import FIELDS
from ddis.data.subsets import fraction_of, subset_count
from ddis.inputs import CHECKED
from ddis.models.ids import OPERATOR, ModelId
from ddis.sampling.base import Evaluations, Size
from ddis.sampling.methods import load_method
from ddis.stages.layout import groups

LONGEST_MINUTES = 24 * 60  # the limit of many partitions
START_MINUTES = 10
MARGIN = 2.0
# Sustained speeds in FLOP/s, assumed: of one GPU in float32, and of one thread, where the quickstart reaches 2e10.
GPU_SPEED, THREAD_SPEED = 5e12, 5e9
CALL_SECONDS = 0.05  # of one network call, however small
SOLVE_SECONDS = 0.1  # of one field of 128 x 128 nodes on one thread; navier-stokes, the slowest problem, takes 0.035
# Of a chain's walk on a learnt model of P modes (ddis.references.surrogate), beside the solve at its end. Two-valued darcy, one
# thread: 3.3, 5.2 and 14.3 ms with 16, 32 and 64 nodes per side.
WALK_SECONDS, WALK_MODE_SECONDS = 2.4e-3, 2.9e-6
READ_SPEED = 5e7  # bytes per second, of a busy file system
# In MB: Python, torch and CUDA's libraries; one process that generates fields.
BASE, WORKER = 3000, 1000
CHAIN_BYTES = 4_000_000  # of what a Markov chain keeps
# Tensors of the first level's width that a network keeps at most, forwards and backwards; fields of an operator's Jacobian.
TENSORS, JACOBIAN_FIELDS = 100, 128


def memory_mb(study: Study, stage: str, **arguments: str) -> int:
    """Main memory in MB that a job of a stage asks for. Of a network on a GPU, activations are not in main memory."""
    total = BASE + (3 * _pairs_bytes(study, study.data.train) / 1e6 if stage == "train" else 0)  # others read fields by blocks
    if stage == "generate":
        total += study.data.workers * (WORKER + _pairs_bytes(study, 100) / 1e6)
    if stage in ("train", "tune", "check", "draw", "sample", "guidance") and study.device == "cpu":
        total += _activation_bytes(study) / 1e6
    if stage == "train":
        total *= study.training_processes
    if stage in ("draw", "sample"):
        case = Case(**{key: value for key, value in arguments.items() if key != "shard"})
        total += (3 * _samples_bytes(study, case) + evaluations(study, case).memory) / 1e6
    if stage == "reference" and study.references is not None:
        chains = study.references.chains
        total += study.reference_fields * (4 * _values(study) * study.references.samples + CHAIN_BYTES * chains) / 1e6
    if stage in ("tables", "figures", "paper"):  # one file after the other; all runs on an observation together
        files = [[_samples_bytes(study, c) for c in study.cases() if (c.problem, c.observation) == g] for g in groups(study)]
        total += max(3 * max(sizes) if stage == "tables" else 2 * sum(sizes) for sizes in files) / 1e6
    return round(total)


def minutes(study: Study, stage: str, **arguments: str) -> int:
    """Time limit in minutes that a job of a stage asks for."""
    estimates: dict[str, Callable[..., float]] = {
        "generate": _generate_seconds,
        "train": _train_seconds,
        "tune": _tune_seconds,
        "check": _check_seconds,
        "draw": _draw_seconds,
        "sample": _sample_seconds,
        "reference": _reference_seconds,
    }
    estimate = estimates.get(stage, _report_seconds)
    return min(LONGEST_MINUTES, START_MINUTES + math.ceil(MARGIN * estimate(study, **arguments) / 60))


def evaluations(study: Study, case: Case) -> Evaluations:
    """What a run costs, by its method."""
    settings, problem = study.run_for(case), study.make_problem(case.problem)
    nodes = math.prod(problem.shapes(study.data.resolution)[0])
    size = Size(study.observed(case.problem, case.observation), nodes, study.data.test, problem.linear, problem.is_gaussian)
    return load_method(settings.method)(settings).cost(size)


def _network_seconds(study: Study, calls: float, flops: float) -> float:
    speed = study.threads * THREAD_SPEED if study.device == "cpu" else GPU_SPEED
    return calls * CALL_SECONDS + flops / speed


def _solve_seconds(study: Study, fields: float) -> float:
    """Of the problem's solver, with one thread; the number of its steps grows with the resolution."""
    return fields * SOLVE_SECONDS * (study.data.resolution / 128) ** 3


def _generate_seconds(study: Study, problem: str, split: str) -> float:
    return _solve_seconds(study, getattr(study.data, split)) / study.data.workers


def _train_seconds(study: Study, problem: str, model: str) -> float:
    named = ModelId.parse(model)
    settings, network = study.training(named), study.section(named).flops(study.training_resolution(named))
    steps = settings.steps * (1 + 1 / settings.validate_every)
    return _read_seconds(study) + _network_seconds(study, 3 * steps, 3 * network * steps * settings.batch)


def _chain_seconds(study: Study, case: Case, fields: int, samples: int) -> float:
    """Of drawing `samples` samples of each of `fields` fields."""
    settings, cost = study.run_for(case), evaluations(study, case)
    models = {named.part: named for named in map(ModelId.parse, study.models_of(case.run, case.percent))}
    operator = models.pop(OPERATOR, ModelId(OPERATOR, case.percent))  # the solver is taken to cost as much as the network
    once, priors = (sum(study.section(m).flops(study.data.resolution) for m in part) for part in ([operator], models.values()))
    flops = cost.operator * once + cost.prior * priors
    batches = math.ceil(fields * samples / settings.batch)
    calls = batches * (cost.prior + cost.operator) + cost.shared / JACOBIAN_FIELDS
    solved = _solve_seconds(study, fields * samples * cost.solver)
    return _read_seconds(study) + solved + _network_seconds(study, calls, fields * samples * flops + cost.shared * once)


def _draw_seconds(study: Study, problem: str, observation: str, run: str, percent: str, shard: str) -> float:
    case = Case(problem, observation, run, percent)
    return _chain_seconds(study, case, len(study.shards_of(case)[int(shard)]), study.run_for(case).samples)


def _sample_seconds(study: Study, problem: str, observation: str, run: str, percent: str) -> float:
    """Of drawing, unless shards have done it, and of solving the equation for every sample."""
    case = Case(problem, observation, run, percent)
    samples, fields = study.run_for(case).samples, study.data.test
    drawn = len(study.shards_of(case)) > 1
    return _solve_seconds(study, fields * samples) + (
        _read_seconds(study) if drawn else _chain_seconds(study, case, fields, samples)
    )


def _reference_seconds(study: Study, problem: str, observation: str) -> float:
    """Of solving the equation at every step of all chains, and of their walks; of closed forms less."""
    settings, modes = study.reference_settings(problem, observation), _walk_modes(study, problem)
    steps = study.reference_fields * settings.chains * (settings.burn_in + settings.steps)
    walks = steps * (WALK_SECONDS + WALK_MODE_SECONDS * modes) if modes else 0.0
    return _read_seconds(study) + _solve_seconds(study, steps) + walks


def _walk_modes(study: Study, problem: str) -> int:
    """P of the walks of reference chains; 0 where the coefficient has no jumps, and chains take none."""
    made = study.make_problem(problem)
    spectrum = made.latent_spectrum(study.data.resolution) if made.jumps else None
    return 0 if spectrum is None else spectrum.numel()


def _tune_seconds(study: Study, problem: str, observation: str, run: str, percent: str) -> float:
    case = Case(problem, observation, run, percent)
    fields = min(study.tuning.fields, subset_count(fraction_of(percent), study.data.validation))
    return len(study.tuning.candidates[run]) * _chain_seconds(study, case, fields, 1)


def _check_seconds(study: Study, problem: str, observation: str, run: str, percent: str) -> float:
    case = Case(problem, observation, run, percent)
    fields, samples = min(CHECKED, subset_count(fraction_of(percent), study.data.validation)), study.run_for(case).samples
    return _solve_seconds(study, fields * samples) + _chain_seconds(study, case, fields, samples)


def _report_seconds(study: Study, **arguments: str) -> float:
    """Of what reads data or samples and computes little."""
    samples = sum(_samples_bytes(study, case) for case in study.cases())
    return _read_seconds(study) + 3 * samples / READ_SPEED


def _read_seconds(study: Study) -> float:
    """Of the training split, three times: by its digest, its values and what is computed of them."""
    return 3 * _pairs_bytes(study, study.data.train) / READ_SPEED


def _pairs_bytes(study: Study, count: int) -> int:
    return len(FIELDS) * 4 * count * _values(study)


def _samples_bytes(study: Study, case: Case) -> int:
    """Of a samples file: samples and their solutions, and seven fields per test field."""
    return (2 * study.run_for(case).samples + 7) * 4 * study.data.test * _values(study)


def _activation_bytes(study: Study) -> int:
    """Of the largest batch that goes through a network."""
    sections = study.sections().values()
    widths, batches = [section.finest for section in sections], [section.training.batch for section in sections]
    batches += [run.batch for run in study.runs.values()] + [JACOBIAN_FIELDS]
    return TENSORS * 4 * max(widths) * max(batches) * _values(study)


def _values(study: Study) -> int:
    """Of the largest field of any problem."""
    return max(math.prod(shape) for name in study.problems for shape in study.make_problem(name).shapes(study.data.resolution))
