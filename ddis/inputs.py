"""What the result of each stage depends on. `Study.digest` of it marks every file that is made."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ddis.data.hdf5 import read_attributes
from ddis.data.store import PAIRS
from ddis.data.subsets import fraction_of
from ddis.errors import InputError
from ddis.models.ids import OPERATOR, ModelId
from ddis.observe import SensorSettings
from ddis.sampling.methods import load_method
from ddis.settings import SPLITS, Case

if TYPE_CHECKING:
    from ddis.config import Study


def generate_inputs(study: "Study", problem: str, split: str) -> dict[str, Any]:
    if split not in SPLITS:
        raise InputError(f"split {split!r} is unknown; accepted: {', '.join(SPLITS)}")
    made = study.make_problem(problem)
    settings = study.problems[problem]
    parameters = made.parameters.model_dump(mode="json")
    file = study.data_file(problem, split)
    return {
        "pde": settings.pde,
        "parameters": parameters,
        "resolution": study.data.resolution,
        "count": getattr(study.data, split),
        **({"seed": study.seed} if file is None else {"file": read_attributes(file, PAIRS)["digest"]}),
    }


def pairs_inputs(study: "Study", problem: str, percent: str) -> dict[str, Any]:
    study.make_problem(problem)
    return {"count": study.data.train, "fraction": fraction_of(percent), "seed": study.seed}


def train_inputs(study: "Study", problem: str, model: str) -> dict[str, Any]:
    named = ModelId.parse(model)
    data = {split: study.inputs("generate", problem=problem, split=split) for split in ("train", "validation")}
    settings = study.section(named).inputs(named.percent)
    noise = {"kernel": "white"} if named.white else study.noise.model_dump(mode="json")
    return {"data": data, "settings": settings, "seed": study.seed, **({} if named.part == OPERATOR else {"noise": noise})}


def sample_inputs(study: "Study", problem: str, observation: str, run: str, percent: str, split: str = "test") -> dict[str, Any]:
    settings = study.run_for(Case(problem, observation, run, percent))
    return {
        "data": {s: study.inputs("generate", problem=problem, split=s) for s in ("train", split)},
        "models": {m: study.digest("train", problem=problem, model=m) for m in study.models_of(run, percent)},
        "observe": observation_inputs(study.observations[observation]),
        "settings": settings.model_dump(mode="json", exclude={"fractions", "problems"}),
        "noise": study.noise.model_dump(mode="json"),
        "seed": study.seed,
    }


def draw_inputs(study: "Study", problem: str, observation: str, run: str, percent: str, shard: str) -> dict[str, Any]:
    shards = study.shards_of(Case(problem, observation, run, percent))
    if shard not in map(str, range(len(shards))):
        raise InputError(f"shard {shard!r} is not in the study; accepted: 0 to {len(shards) - 1}")
    fields = shards[int(shard)]
    return {**sample_inputs(study, problem, observation, run, percent), "fields": [fields.start, fields.stop]}


def tune_inputs(study: "Study", problem: str, observation: str, run: str, percent: str) -> dict[str, Any]:
    sample = sample_inputs(study, problem, observation, run, percent, split="validation")
    settings = sample["settings"]
    weight = settings.pop(load_method(study.runs[run].method).tuned)
    if settings.get("start_weight") is not None:  # tuning keeps its ratio to the weight
        settings["start_weight"] /= weight
    return {**sample, "fields": study.tuning.fields, "candidates": list(study.tuning.candidates[run])}


def reference_inputs(study: "Study", problem: str, observation: str) -> dict[str, Any]:
    settings = study.reference_settings(problem, observation)
    return {
        "data": {s: study.inputs("generate", problem=problem, split=s) for s in ("train", "test")},
        "observe": observation_inputs(study.observations[observation]),
        "settings": settings.model_dump(mode="json", exclude={"problems", "fields"}),
        "fields": study.reference_fields,
        "seed": study.seed,
    }


def card_inputs(study: "Study", problem: str) -> dict[str, Any]:
    return {"data": {split: study.digest("generate", problem=problem, split=split) for split in SPLITS}}


def tables_inputs(study: "Study") -> dict[str, Any]:
    samples = {"/".join(vars(c).values()): study.digest("sample", **vars(c)) for c in study.cases()}
    references = {f"{p}/{o}": study.digest("reference", problem=p, observation=o) for p, o in study.reference_cases()}
    return {"samples": samples, **({"references": references} if references else {})}


def figures_inputs(study: "Study") -> dict[str, Any]:
    return tables_inputs(study)


def report_inputs(study: "Study") -> dict[str, Any]:
    return {**tables_inputs(study), "configuration": study.resolved()}


def tuning_inputs(study: "Study") -> dict[str, Any]:
    cases = [case for case in study.cases() if case.run in study.tuning.candidates]
    return {"curves": {"/".join(vars(c).values()): study.digest("tune", **vars(c)) for c in cases}}


def observation_inputs(settings: SensorSettings | tuple[SensorSettings, ...]) -> Any:
    return settings.inputs() if isinstance(settings, SensorSettings) else [part.inputs() for part in settings]


INPUTS: dict[str, Callable[..., dict[str, Any]]] = {
    "generate": generate_inputs,
    "pairs": pairs_inputs,
    "train": train_inputs,
    "sample": sample_inputs,
    "draw": draw_inputs,
    "tune": tune_inputs,
    "reference": reference_inputs,
    "card": card_inputs,
    "tables": tables_inputs,
    "figures": figures_inputs,
    "report": report_inputs,
    "tuning": tuning_inputs,
}
