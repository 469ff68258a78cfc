"""The configuration of a study: typed, complete, checked before anything runs.

`Study.load` takes a file or a dictionary, fills in every default and raises one InputError that names key, value and what is
accepted. `Study.inputs` says, stage by stage, what a result depends on; its digest marks every file that is made.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    PrivateAttr,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from ddis.checks import check
from ddis.data.subsets import percent_label
from ddis.errors import LARGEST_WHOLE, InputError
from ddis.inputs import Inputs
from ddis.models.ids import OPERATOR, ModelId
from ddis.observe import Placed, SensorSettings, sensors_of, settings_of
from ddis.observe.likelihood import Likelihood
from ddis.pde import make_problem
from ddis.pde.base import Problem, symmetries_of
from ddis.references.kinds import kind_of
from ddis.refusals import SettingError, below, explain, shown, text_keys
from ddis.sampling.base import RunSettings
from ddis.sampling.methods import load_method, operator_of, run_settings, uses_pairs, with_operator
from ddis.settings import Case, DataSettings, Name, NoiseSettings, ProblemSettings, ReferenceSettings, Settings, TuningSettings
from ddis.training.diffusion import DiffusionSettings
from ddis.training.flow import FlowSettings
from ddis.training.sections import OperatorSettings, PriorSettings, TrainedSettings, operator_variants
from ddis.training.settings import TrainingSettings
from ddis.written import as_written
from ddis.yaml_text import merged, parse_assignments, read_yaml

Fraction = Annotated[float, Field(gt=0, le=1)]


class Study(Settings):
    """A whole study. See config/config.yaml for an example with comments.

    shards: jobs that the test fields of a run are divided among; no result depends on it.
    training_processes: processes that share a training, one GPU each; results depend on it by the rounding of float32 alone.
    """

    study: Annotated[Name, BeforeValidator(as_written)]
    seed: int = Field(0, ge=0, le=LARGEST_WHOLE)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = Field(1, ge=1)
    checkpoint_seconds: float = Field(20.0, ge=0)
    shards: int = Field(1, ge=1)
    training_processes: int = Field(1, ge=1)
    problems: dict[Name, ProblemSettings] = Field(min_length=1)
    data: DataSettings
    fractions: tuple[Fraction, ...] = Field(min_length=1)
    observations: dict[Name, SerializeAsAny[SensorSettings] | tuple[SerializeAsAny[SensorSettings], ...]] = Field(min_length=1)
    noise: NoiseSettings = NoiseSettings()
    prior: DiffusionSettings = DiffusionSettings()
    joint: DiffusionSettings = DiffusionSettings()
    flow: FlowSettings = FlowSettings()
    operator: OperatorSettings = OperatorSettings()
    operators: dict[Name, OperatorSettings] = Field({})
    runs: dict[Name, SerializeAsAny[RunSettings]] = Field(min_length=1)
    tuning: TuningSettings = TuningSettings()
    references: ReferenceSettings | None = Field(None, exclude_if=lambda settings: settings is None)
    _folder: Path | None = PrivateAttr(None)

    @field_validator("operators", mode="before")
    @classmethod
    def _variants(cls, value: Any, info: ValidationInfo) -> Any:
        base = info.data.get("operator")
        return operator_variants(base, value) if isinstance(value, Mapping) and base is not None else value

    @field_validator("runs", mode="before")
    @classmethod
    def _typed_runs(cls, value: Any, info: ValidationInfo) -> Any:
        if not isinstance(value, Mapping):
            return value
        for name, run in value.items():
            if not isinstance(run, Mapping | RunSettings | None):
                raise SettingError(f"{name}: {run!r}; accepted: settings such as {{method: ddis, samples: 4}}, or nothing")
        own = info.data.get("operator", OperatorSettings())
        made = {name: below(name, run_settings, name, dict(run or {})) for name, run in value.items()}
        return {name: with_operator(settings, own.name) for name, settings in made.items()}

    @field_validator("observations", mode="before")
    @classmethod
    def _typed_observations(cls, value: Any) -> Any:
        return {name: below(name, settings_of, given) for name, given in value.items()} if isinstance(value, Mapping) else value

    @model_validator(mode="after")
    def _check(self) -> "Study":
        check(self)
        return self

    def data_file(self, problem: str, split: str) -> Path | None:
        """The file that a split is taken from; None if it is generated."""
        path = getattr(self.data.files.get(problem), split, None)
        return None if path is None else Path(path)

    def reference_file(self, problem: str, observation: str) -> Path | None:
        """The file that reference posteriors are taken from; None if they are made."""
        path = None if self.references is None else self.references.files.get(problem, {}).get(observation)
        return None if path is None else Path(path)

    @classmethod
    def load(cls, source: Path | str | Mapping[str, Any]) -> "Study":
        """The study of a YAML file or a dictionary. Raises InputError."""
        if isinstance(source, Mapping):
            return cls._validate(dict(source), "configuration")
        if not isinstance(source, str | Path):
            raise InputError(f"the configuration is {shown(source)}; accepted: keys and values, see config/config.yaml")
        return cls.read([source])

    @classmethod
    def read(cls, paths: Iterable[Path | str], changes: Iterable[str] = ()) -> "Study":
        """The study of YAML files, each of which changes those before it, and of `KEY=VALUE`. Raises InputError."""
        paths, content = list(paths), dict[str, Any]()
        for path in paths:
            part = read_yaml(path)
            if not isinstance(part, dict):
                what = "is empty" if part is None else f"holds {shown(part)}"
                raise InputError(f"{path} {what}, which is no configuration; accepted: keys and values, see config/config.yaml")
            content = merged(content, part)
        return cls._validate(merged(content, parse_assignments(changes, "--config")), ", ".join(map(str, paths)))

    @classmethod
    def _validate(cls, content: dict[str, Any], source: str) -> "Study":
        try:
            return cls.model_validate(text_keys(content))
        except ValidationError as error:
            raise InputError(f"{source}: " + "; ".join(explain(cls, e) for e in error.errors())) from error
        except RecursionError as error:
            raise InputError(f"{source}: nested too deeply, or without end") from error

    def resolved(self) -> dict[str, Any]:
        """Every setting, defaults included, as plain values; `Study.load(study.resolved()) == study`."""
        return self.model_dump(mode="json")

    @property
    def folder(self) -> Path:
        return self._folder or Path("results") / self.study

    @classmethod
    def in_folder(cls, folder: Path) -> "Study":
        """The study whose files lie in `folder`, wherever that was moved to. Raises InputError."""
        study = cls.load(folder / "config.yaml")
        study._folder = folder
        return study

    def make_problem(self, name: str) -> Problem:
        """The problem called `name` in the configuration. Raises InputError if there is none."""
        if name not in self.problems:
            raise InputError(f"problem {name!r} is not in the study; accepted: {', '.join(self.problems)}")
        settings = self.problems[name]
        made = make_problem(settings.pde, settings.parameters)
        made.resolution = self.data.resolution
        return made

    def placed(self, problem: str, observation: str) -> Placed:
        """The observation operator on the grids of a problem."""
        coefficient, solution = self.make_problem(problem).spaces(self.data.resolution)
        return Placed(sensors_of(self.observations[observation]), solution, coefficient)

    def observed(self, problem: str, observation: str) -> int:
        """Number of observed values of a field. Raises InputError for what is not on the grid."""
        return len(self.placed(problem, observation).draw(0, 0)[0])

    def sections(self) -> dict[str, TrainedSettings]:
        """The sections of what is trained, by key."""
        operators = {f"operators.{name}": section for name, section in self.operators.items()}
        return {**{key: value for key, value in self if isinstance(value, TrainedSettings)}, **operators}

    def section_name(self, model: ModelId) -> str:
        """The key of a model's settings. Raises InputError for an operator that is not in the study."""
        if model.variant and model.variant not in self.operators:
            known = ", ".join(self.operators) or "none"
            raise InputError(f"model {str(model)!r}: {model.variant!r} is not in the study; accepted operators: {known}")
        return f"operators.{model.variant}" if model.variant else model.part

    def section(self, model: ModelId) -> TrainedSettings:
        """The settings of a model. Raises InputError for an operator that is not in the study."""
        return self.sections()[self.section_name(model)]

    def prior_section(self, model: ModelId) -> PriorSettings:
        """The settings of a prior."""
        section = self.section(model)
        assert isinstance(section, PriorSettings)
        return section

    def noise_of(self, model: ModelId) -> NoiseSettings:
        """The noise that a model's fields are mixed with in its training; of an operator the study's, which it does not see."""
        section = self.section(model)
        return section.noise_or(self.noise) if isinstance(section, PriorSettings) else self.noise

    def operator_section(self, model: ModelId) -> OperatorSettings:
        """The settings of an operator."""
        section = self.section(model)
        assert isinstance(section, OperatorSettings)
        return section

    def located(self, problem: str, model: ModelId) -> bool:
        """Whether a network is told coordinates: a prior on a domain with periodic axes, of fields without known `shifts`."""
        made = self.make_problem(problem)
        if model.part == OPERATOR or not any(made.coefficient_space(self.data.resolution).grid.periodic):
            return False
        return self.data_file(problem, "train") is not None or "shifts" not in symmetries_of(made, pairs=bool(model.percent))

    def training_resolution(self, model: ModelId) -> int:
        """Nodes per side of the fields that a model is trained on."""
        return self.section(model).resolution or self.data.resolution

    def coarser(self, run: str, percent: str) -> dict[str, int]:
        """By section, the nodes per side that networks of a run are trained on, where these are fewer than the fields have."""
        models = map(ModelId.parse, self.models_of(run, percent))
        nodes = {self.section_name(model): self.training_resolution(model) for model in models}
        return {name: size for name, size in nodes.items() if size != self.data.resolution}

    def training(self, model: ModelId) -> TrainingSettings:
        """Training settings of a model at its percent of the pairs."""
        return self.section(model).training_at(model.percent)

    def percents(self, run: str) -> list[str]:
        """Percents of the pairs at which a run is made; 100 for runs that use no pairs."""
        if not uses_pairs(self.runs[run]):
            return ["100"]
        own = self.runs[run].fractions
        return [percent_label(f) for f in (self.fractions if own is None else own)]

    def cases(self) -> list[Case]:
        """Every row of the tables."""
        return [
            Case(problem, observation, run, percent)
            for problem in self.problems
            for observation in self.observations
            for run, settings in self.runs.items()
            if settings.problems is None or problem in settings.problems
            if settings.observations is None or observation in settings.observations
            for percent in self.percents(run)
        ]

    def run_for(self, case: Case) -> RunSettings:
        """Settings of the run of a case. Raises InputError if it is not in the study."""
        if case not in self.cases():
            known = sorted({f"{c.problem}/{c.observation}/{c.run}-{c.percent}" for c in self.cases()})
            wanted = f"{case.problem}/{case.observation}/{case.run}-{case.percent}"
            raise InputError(f"{wanted} is not in the study; accepted: {', '.join(known)}")
        return self.runs[case.run].for_case(case.problem, case.percent)

    def reference_cases(self) -> list[tuple[str, str]]:
        """(problem, observation) that have reference posteriors; none unless the study asks for them."""
        if self.references is None:
            return []
        chosen = self.references.problems or self.problems
        every = [(p, o) for p in self.problems if p in chosen for o in self.observations]
        return [(p, o) for p, o in every if self.reference_file(p, o) or self.has_reference(p, o)]

    def reference_settings(self, problem: str, observation: str) -> ReferenceSettings:
        """Raises InputError for what has no reference in the study."""
        known = self.reference_cases()
        if self.references is None or (problem, observation) not in known:
            accepted = ", ".join("/".join(case) for case in known) or "none, `references` is not set"
            raise InputError(f"reference {problem}/{observation} is not in the study; accepted: {accepted}")
        return self.references

    def likelihood(self, observation: str) -> Likelihood:
        """What the values of an observation are taken to say."""
        parts = self.observations[observation]
        return (parts[0] if isinstance(parts, tuple) else parts).likelihood

    def has_reference(self, problem: str, observation: str) -> bool:
        """Whether there is a way to draw from the posterior."""
        return kind_of(self.make_problem(problem), self.likelihood(observation)) is not None

    @property
    def reference_fields(self) -> int:
        """Test fields with a reference."""
        assert self.references is not None
        return self.references.fields or self.data.test

    def models_of(self, run: str, percent: str) -> list[str]:
        """Names of the trained models that a run needs."""
        return self.models_for(self.runs[run], percent)

    def models_for(self, settings: RunSettings, percent: str) -> list[str]:
        """Names of the trained models that a run of these settings needs."""
        method, operator = load_method(settings.method), operator_of(settings)
        found = []
        if method.prior == "coefficient":
            found.append(ModelId("prior"))
        elif method.prior is not None:
            found.append(ModelId(method.prior, percent, method.noise == "white"))
        if operator not in (None, "solver"):
            own = operator in (self.operator.name, "corrected")
            found.append(ModelId(OPERATOR, percent, variant="" if own else operator))
        return [str(model) for model in found]

    def guided(self) -> dict[str, list[str]]:
        """By problem, the percents at which the guidance of joint and decoupled models can be compared; there are two or more."""
        found = {}
        for problem in self.problems:
            models = {m for c in self.cases() if c.problem == problem for m in self.models_of(c.run, c.percent)}
            paired = {m.percent for m in map(ModelId.parse, models) if {f"joint-{m.percent}", f"operator-{m.percent}"} <= models}
            if "prior" in models and len(paired) > 1:
                found[problem] = sorted(paired, key=float)
        return found

    def shards_of(self, case: Case) -> list[range]:
        """Test fields of each of a run's sampling jobs: whole batches, so that samples do not depend on `shards`."""
        size = self.run_for(case).fields_per_batch
        batches = math.ceil(self.data.test / size)
        count = min(self.shards, batches)
        edges = [size * (batches * shard // count) for shard in range(count)] + [self.data.test]
        return [range(start, stop) for start, stop in pairwise(edges)]

    def inputs(self, stage: str, **arguments: str) -> dict[str, Any]:
        """What the result of a stage depends on, with all that came before."""
        return Inputs(self, brief=False).of(stage, **arguments)

    def chosen(self, stage: str, **arguments: str) -> dict[str, Any]:
        """As `inputs`, without settings at their defaults."""
        return Inputs(self, brief=True).of(stage, **arguments)

    def digest(self, stage: str, **arguments: str) -> str:
        """16 hexadecimal digits of what is chosen for a stage; a setting that is new in the code, at its default, keeps them."""
        text = json.dumps(self.chosen(stage, **arguments), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
