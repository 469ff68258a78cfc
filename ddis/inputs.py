"""What the result of each stage depends on. `Study.digest` of it marks every file that is made."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from ddis.data.hdf5 import read_attributes
from ddis.data.references import REFERENCES
from ddis.data.store import PAIRS
from ddis.data.subsets import fraction_of
from ddis.errors import InputError
from ddis.models.ids import OPERATOR, ModelId
from ddis.observe import SensorSettings
from ddis.sampling.methods import load_method
from ddis.settings import SPLITS, Case
from ddis.versions import COORDINATES, METHODS, NEARER, NETWORKS, PROBLEMS, STAGES, WALKS, version

if TYPE_CHECKING:
    from ddis.config import Study


CHECKED = 64
"""Held-out fields that `ddis check` draws samples of, if there are so many."""


def chosen(value: Any) -> Any:
    """Settings as plain values, without those at their defaults; names of classes, which a base class leaves open, are chosen."""
    if isinstance(value, BaseModel):
        kinds = [kind.model_fields for kind in type(value).__mro__ if issubclass(kind, BaseModel)]
        open_ = {name for fields in kinds for name, field in fields.items() if field.is_required()}
        default = {name: field.default for name, field in kinds[0].items() if name not in open_}
        return {name: chosen(part) for name, part in value if name not in default or part != default[name]}
    if isinstance(value, Mapping):
        return {name: chosen(part) for name, part in value.items()}
    return [chosen(part) for part in value] if isinstance(value, list | tuple) else value


def versions_of(study: "Study", stage: str, **arguments: str) -> dict[str, int | str]:
    """Versions of the kinds of result that a stage's own are of; those of its inputs stand in theirs."""
    found: dict[str, int | str] = {stage: STAGES["sample" if stage == "draw" else stage]}
    if stage == "generate":
        problem = study.make_problem(arguments["problem"])
        name = study.problems[arguments["problem"]].pde
        found[name] = version(PROBLEMS, name, type(problem))
    if stage == "reference":
        made = study.reference_file(arguments["problem"], arguments["observation"]) is None
        found |= {"walks": WALKS} if made and study.make_problem(arguments["problem"]).jumps else {}
    if stage == "tune" and study.make_problem(arguments["problem"]).even:
        found["nearer"] = NEARER
    if stage == "train":
        model = ModelId.parse(arguments["model"])
        kinds = study.section(model).versioned()
        found |= {name: version(NETWORKS, name, kind) for name, kind in kinds.items()}
        found |= {"coordinates": COORDINATES} if study.located(arguments["problem"], model) else {}
    if "run" in arguments:
        name = study.runs[arguments["run"]].method
        found[name] = version(METHODS, name, load_method(name))
    return found


@dataclass(frozen=True)
class Inputs:
    """A method for each stage. brief: without settings at their defaults, so that a new one in the code changes nothing."""

    study: "Study"
    brief: bool

    def of(self, stage: str, **arguments: str) -> dict[str, Any]:
        version = versions_of(self.study, stage, **arguments)
        return {"stage": stage, "version": version, **arguments, **getattr(self, stage)(**arguments)}

    def plain(self, settings: BaseModel, *without: str) -> dict[str, Any]:
        """Settings as plain values."""
        values = chosen(settings) if self.brief else settings.model_dump(mode="json")
        return {name: value for name, value in values.items() if name not in without}

    def generate(self, problem: str, split: str) -> dict[str, Any]:
        study = self.study
        if split not in SPLITS:
            raise InputError(f"split {split!r} is unknown; accepted: {', '.join(SPLITS)}")
        parameters = self.plain(study.make_problem(problem).parameters)
        file = study.data_file(problem, split)
        return {
            "pde": study.problems[problem].pde,
            "parameters": parameters,
            "resolution": study.data.resolution,
            "count": getattr(study.data, split),
            **({"seed": study.seed} if file is None else {"file": read_attributes(file, PAIRS)["digest"]}),
        }

    def pairs(self, problem: str, percent: str) -> dict[str, Any]:
        self.study.make_problem(problem)
        return {"count": self.study.data.train, "fraction": fraction_of(percent), "seed": self.study.seed}

    def train(self, problem: str, model: str) -> dict[str, Any]:
        named = ModelId.parse(model)
        section = self.study.section(named)
        without = ["at", "training"] + ["resolution"] * (section.resolution == self.study.data.resolution)  # which is all nodes
        settings = self.plain(section, *without) | {"training": self.plain(section.training_at(named.percent))}
        noise = {"kernel": "white"} if named.white else self.plain(self.study.noise_of(named))
        return {
            "data": self.data(problem, "train", "validation"),
            "settings": settings,
            "seed": self.study.seed,
            **({} if named.part == OPERATOR else {"noise": noise}),
        }

    def sample(self, problem: str, observation: str, run: str, percent: str, split: str = "test") -> dict[str, Any]:
        study = self.study
        settings = study.run_for(Case(problem, observation, run, percent))
        return {
            "data": self.data(problem, "train", split),
            "models": {m: study.digest("train", problem=problem, model=m) for m in study.models_of(run, percent)},
            "observe": self.observed(study.observations[observation]),
            "settings": self.plain(settings, "fractions", "problems", "observations"),
            "noise": self.plain(study.noise),
            "seed": study.seed,
        }

    def draw(self, problem: str, observation: str, run: str, percent: str, shard: str) -> dict[str, Any]:
        shards = self.study.shards_of(Case(problem, observation, run, percent))
        if shard not in map(str, range(len(shards))):
            raise InputError(f"shard {shard!r} is not in the study; accepted: 0 to {len(shards) - 1}")
        fields = shards[int(shard)]
        return {**self.sample(problem, observation, run, percent), "fields": [fields.start, fields.stop]}

    def tune(self, problem: str, observation: str, run: str, percent: str) -> dict[str, Any]:
        study = self.study
        settings = study.run_for(Case(problem, observation, run, percent))
        sample = self.sample(problem, observation, run, percent, split="validation")
        tuned = str(load_method(settings.method).tuned)
        kept = {key: value for key, value in sample["settings"].items() if key != tuned}
        if kept.get("start_weight") is not None:  # tuning keeps its ratio to the weight
            kept["start_weight"] /= getattr(settings, tuned)
        candidates = list(study.tuning.candidates[run])
        return {**sample, "settings": kept, "fields": study.tuning.fields, "candidates": candidates}

    def check(self, problem: str, observation: str, run: str, percent: str) -> dict[str, Any]:
        return {**self.sample(problem, observation, run, percent, split="validation"), "fields": CHECKED}

    def reference(self, problem: str, observation: str) -> dict[str, Any]:
        study, file = self.study, self.study.reference_file(problem, observation)
        return {
            "data": self.data(problem, "train", "test"),
            "observe": self.observed(study.observations[observation]),
            "settings": self.plain(study.reference_settings(problem, observation), "problems", "fields", "files"),
            "fields": study.reference_fields,
            **({"seed": study.seed} if file is None else {"file": read_attributes(file, REFERENCES)["digest"]}),
        }

    def card(self, problem: str) -> dict[str, Any]:
        return {"data": {split: self.study.digest("generate", problem=problem, split=split) for split in SPLITS}}

    def guidance(self, problem: str) -> dict[str, Any]:
        study, first = self.study, next(iter(self.study.observations))
        percents = study.guided().get(problem, [])
        names = ["prior", *(f"{part}-{percent}" for part in ("joint", OPERATOR) for percent in percents)]
        return {
            "data": self.data(problem, "train", "test"),
            "models": {name: study.digest("train", problem=problem, model=name) for name in names},
            "observe": self.observed(study.observations[first]),
            "noise": self.plain(study.noise),
            "seed": study.seed,
        }

    def tables(self) -> dict[str, Any]:
        study = self.study
        samples = {"/".join(vars(c).values()): study.digest("sample", **vars(c)) for c in study.cases()}
        references = {f"{p}/{o}": study.digest("reference", problem=p, observation=o) for p, o in study.reference_cases()}
        return {"samples": samples, **({"references": references} if references else {})}

    def figures(self) -> dict[str, Any]:
        return self.tables()

    def report(self) -> dict[str, Any]:
        return {**self.tables(), "configuration": self.plain(self.study)}

    def paper(self) -> dict[str, Any]:
        guided = {problem: self.study.digest("guidance", problem=problem) for problem in self.study.guided()}
        return {**self.report(), **({"guidance": guided} if guided else {})}

    def tuning(self) -> dict[str, Any]:
        cases = [case for case in self.study.cases() if case.run in self.study.tuning.candidates]
        return {"curves": {"/".join(vars(c).values()): self.study.digest("tune", **vars(c)) for c in cases}}

    def data(self, problem: str, *splits: str) -> dict[str, Any]:
        return {split: self.of("generate", problem=problem, split=split) for split in splits}

    def observed(self, settings: SensorSettings | tuple[SensorSettings, ...]) -> Any:
        return self.plain(settings) if isinstance(settings, SensorSettings) else [self.plain(part) for part in settings]
