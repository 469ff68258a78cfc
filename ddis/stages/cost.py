"""Stage `cost`: what a study takes before it is made, as an estimate with its parts, printed and kept for the workflow."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ddis.config import Case, Study
from ddis.data.subsets import fraction_of, subset_count
from ddis.files import write_json
from ddis.inputs import CHECKED
from ddis.models.ids import OPERATOR, ModelId
from ddis.provenance import device_name
from ddis.settings import SPLITS
from ddis.stages import layout
from ddis.stages.common import resolve_device, settle
from ddis.stages.measure import Example, NetworkCost, SamplerCost, Timed, example, network_cost, sampler_cost
from ddis.stages.records import why_unchecked
from ddis.stages.remaining import COST
from ddis.steps import Step
from ddis.text import pipe_table

RUN_COLUMNS = (
    *("problem", "observation", "run", "percent", "prior evaluations", "operator evaluations", "solver calls", "shared"),
    *("memory, GB", "chains timed", "s a step", "steps", "hours"),
)
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingRow:
    """A network of a problem, the steps of its training, and their seconds; None: it does not fit."""

    problem: str
    model: ModelId
    cost: NetworkCost
    steps: int

    @property
    def seconds(self) -> float | None:
        return None if self.cost.step.seconds is None else self.steps * self.cost.step.seconds


@dataclass(frozen=True)
class SamplingRow:
    """A run on a problem and an observation, at all its percents; seconds with the solves that its samples are scored by."""

    case: Case
    percents: tuple[str, ...]
    cost: SamplerCost
    solves: float

    @property
    def seconds(self) -> float | None:
        return None if self.cost.seconds is None else len(self.percents) * (self.cost.seconds + self.solves)


def run(study: Study) -> None:
    """Prints the estimate as Markdown, and writes cost.json (see `remaining`)."""
    with settle(study):
        found = measured(study)
    print(page(study, *found))
    jobs = {step.label: (step.digest(study), seconds) for step, seconds in job_seconds(study, *found) if seconds is not None}
    write_json(study.folder / COST, {"device": device_name(str(resolve_device(study.device))), "jobs": jobs})


def job_seconds(
    study: Study, units: dict[str, Example], trainings: list[TrainingRow], samplings: list[SamplingRow]
) -> Iterator[tuple[Step, float | None]]:
    """The jobs of a study with their seconds; a candidate of `tune` takes what one sample of its validation fields does, and
    `check` what all samples of its own do."""
    for problem in units:
        for split in generated(study, problem):
            seconds = units[problem].solve * getattr(study.data, split) / study.data.workers
            yield Step("generate", {"problem": problem, "split": split}), seconds
    for training in trainings:
        yield Step("train", {"problem": training.problem, "model": str(training.model)}), training.seconds
    for row in samplings:
        for percent in row.percents:
            case = replace(row.case, percent=percent)
            each = None if row.seconds is None else row.seconds / len(row.percents)
            yield Step("sample", dict(vars(case))), each
            held_out = subset_count(fraction_of(percent), study.data.validation)
            fields = min(study.tuning.fields, held_out)
            if each is not None and why_unchecked(study, case) is None:
                yield Step("check", dict(vars(case))), each * min(CHECKED, held_out) / study.data.test
            if row.cost.seconds is not None and case.run in study.tuning.candidates:
                one = row.cost.seconds / (study.data.test * study.run_for(case).samples)
                yield Step("tune", dict(vars(case))), one * fields * len(study.tuning.candidates[case.run])


def generated(study: Study, problem: str) -> list[str]:
    """The splits that come from no file."""
    return [split for split in SPLITS if study.data_file(problem, split) is None]


def measured(study: Study) -> tuple[dict[str, Example], list[TrainingRow], list[SamplingRow]]:
    """What was found for every problem, network and run; networks that are alike are measured once."""
    units: dict[str, Example] = {}
    known: dict[object, NetworkCost] = {}
    trainings: list[TrainingRow] = []
    samplings: list[SamplingRow] = []
    for problem in study.problems:
        units[problem] = example(study, problem)
        own: dict[str, NetworkCost] = {}
        for name in layout.models(study, problem):
            model = ModelId.parse(name)
            training = study.training(model)
            spaces = tuple(str(space.describe()) for space in units[problem].problem.spaces(study.data.resolution))
            alike = model.kind, training.batch, training.precision, spaces
            if alike not in known:
                _log.info("measuring %s of %s", model.kind, problem)
                known[alike] = network_cost(study, problem, model, units[problem])
            own[name] = known[alike]
            trainings.append(TrainingRow(problem, model, own[name], training.steps))
        samplings += sampling_rows(study, problem, own, units[problem])
    return units, trainings, samplings


def sampling_rows(study: Study, problem: str, networks: dict[str, NetworkCost], units: Example) -> Iterator[SamplingRow]:
    """One row for each observation and run, measured at the first of its percents."""
    cases = [case for case in study.cases() if case.problem == problem]
    for observation, run_name in dict.fromkeys((case.observation, case.run) for case in cases):
        case = next(case for case in cases if (case.observation, case.run) == (observation, run_name))
        _log.info("measuring run %s of %s, %s", run_name, problem, observation)
        parts = {ModelId.parse(name).part: networks[name] for name in study.models_of(case.run, case.percent)}
        operator = parts.pop(OPERATOR, None)
        cost = sampler_cost(study, case, next(iter(parts.values()), None), operator, units)
        solves = study.data.test * study.run_for(case).samples * units.solve
        yield SamplingRow(case, tuple(study.percents(run_name)), cost, solves)


def page(study: Study, units: dict[str, Example], trainings: list[TrainingRow], samplings: list[SamplingRow]) -> str:
    """The estimate in Markdown."""
    device = device_name(str(resolve_device(study.device)))
    made = {p: sum(getattr(study.data, split) for split in generated(study, p)) / study.data.workers for p in units}
    parts = {
        "data": sum(units[problem].solve * fields for problem, fields in made.items()),
        "training": total([row.seconds for row in trainings]),
        "sampling": total([row.seconds for row in samplings]),
    }
    parts["in all"] = total(list(parts.values()))
    return "\n\n".join(
        [
            f"# Cost of the study {study.study}",
            f"Estimated on {device}, threads: {study.threads}, from one step of each training and of each sampler with untrained "
            "networks; one job after the other, without starts, reading and validation.",
            pipe_table(["part", "hours"], ([name, hours(seconds)] for name, seconds in parts.items()), [False, True]),
            "## Networks",
            "Memory is that of a training step. A step is timed on a part of its batch where all of it does not fit or is slow.",
            pipe_table(
                ["problem", "network", "parameters", "memory, GB", "fields timed", "s a step", "steps", "hours"],
                (training_cells(row) for row in trainings),
                [False, False, *[True] * 6],
            ),
            "## Runs",
            "Evaluations are per sample of one field, one with its gradient counted as three; shared ones are made once for all "
            "fields; calls of the solver are those that correct the operator. Memory is at most that. Where no step could be "
            "timed, hours come from the evaluations.",
            pipe_table(
                RUN_COLUMNS,
                (sampling_cells(row) for row in samplings),
                [*[False] * 4, *[True] * 9],
            ),
        ]
    )


def total(seconds: list[float | None]) -> float | None:
    """Sum; None if one of them is not known."""
    known = [each for each in seconds if each is not None]
    return sum(known) if len(known) == len(seconds) else None


def hours(seconds: float | None) -> str:
    return "not known" if seconds is None else short(seconds / 3600)


def short(value: float) -> str:
    """Two digits, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


def timed_cells(step: Timed) -> list[str]:
    """Memory, fields that were run of how many, seconds of a step."""
    memory = short(step.bytes / 1e9)
    if step.seconds is None:
        return [memory, "none", ""]
    return [memory, f"{step.fields} of {step.batch}", short(step.seconds)]


def training_cells(row: TrainingRow) -> list[str]:
    timed = timed_cells(row.cost.step)
    if row.cost.step.seconds is None:
        timed[1] = "none: one does not fit into the free memory"
    return [row.problem, str(row.model), f"{row.cost.parameters:,}", *timed, f"{row.steps:,}", hours(row.seconds)]


def sampling_cells(row: SamplingRow) -> list[str]:
    cost, case = row.cost.evaluations, row.case
    percents = ", ".join(row.percents)
    numbers = [f"{number:,g}" for number in (cost.prior, cost.operator, cost.solver, cost.shared)]
    steps = "" if row.cost.steps is None else str(row.cost.steps)
    return [case.problem, case.observation, case.run, percents, *numbers, *timed_cells(row.cost.step), steps, hours(row.seconds)]
