"""The configuration of a study: typed, complete, checked before anything runs.

`Study.load` takes a file or a dictionary, fills in every default and raises one InputError that names key, value and what is
accepted. `Study.inputs` says, stage by stage, what a result depends on; its digest marks every file that is made.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise, product
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

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

from ddis.data.store import open_pairs
from ddis.data.subsets import fraction_of, percent_label, subset_count
from ddis.errors import InputError
from ddis.fields.noise import RandomFieldNoise
from ddis.inputs import Inputs, chosen
from ddis.models.ids import OPERATOR, PARTS, ModelId
from ddis.observe import Placed, SensorSettings, load_kind, sensors_of
from ddis.pde import make_problem
from ddis.pde.base import Problem
from ddis.references.kinds import kind_of
from ddis.refusals import SettingError, explain, shown, text_keys, validated
from ddis.sampling.base import RunSettings
from ddis.sampling.methods import load_method, run_settings
from ddis.settings import (
    SPLITS,
    Case,
    DataSettings,
    Name,
    NoiseSettings,
    ProblemSettings,
    ReferenceSettings,
    Settings,
    TuningSettings,
)
from ddis.training.diffusion import DiffusionSettings
from ddis.training.sections import OperatorSettings, PriorSettings, TrainedSettings
from ddis.training.settings import TrainingSettings
from ddis.versions import METHODS as METHOD_VERSIONS
from ddis.versions import NETWORKS, STAGES, version
from ddis.versions import PROBLEMS as PROBLEM_VERSIONS
from ddis.written import as_written
from ddis.yaml_text import merged, parse_assignments, read_yaml

RESERVED = ("solver", "corrected")  # names of operators that no section may have
Fraction = Annotated[float, Field(gt=0, le=1)]


class Study(Settings):
    """A whole study. See config/config.yaml for an example with comments.

    shards: jobs that the test fields of a run are divided among; no result depends on it.
    training_processes: processes that share a training, one GPU each; results depend on it by the rounding of float32 alone.
    """

    study: Annotated[Name, BeforeValidator(as_written)]
    seed: int = Field(0, ge=0)
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
    operator: OperatorSettings = OperatorSettings()
    operators: dict[Name, OperatorSettings] = Field({})
    runs: dict[Name, SerializeAsAny[RunSettings]] = Field(min_length=1)
    tuning: TuningSettings = TuningSettings()
    references: ReferenceSettings | None = Field(None, exclude_if=lambda settings: settings is None)
    _folder: Path | None = PrivateAttr(None)

    @field_validator("operators", mode="before")
    @classmethod
    def _variants(cls, value: Any, info: ValidationInfo) -> Any:
        """Each operator with what it does not give from `operator`."""
        base = info.data.get("operator")
        if not isinstance(value, Mapping) or base is None:
            return value
        taken = [name for name in value if name in RESERVED or name == base.name]
        if taken:
            others = ", ".join([base.name, *RESERVED])
            raise SettingError(f"{taken[0]}: the name of another operator; accepted: other names than {others}")
        return {name: _below(name, _variant, base, given) for name, given in value.items()}

    @field_validator("runs", mode="before")
    @classmethod
    def _typed_runs(cls, value: Any, info: ValidationInfo) -> Any:
        if not isinstance(value, Mapping):
            return value
        for name, run in value.items():
            if not isinstance(run, Mapping | RunSettings | None):
                raise SettingError(f"{name}: {run!r}; accepted: settings such as {{method: ddis, samples: 4}}, or nothing")
        own = info.data.get("operator", OperatorSettings())
        made = {name: _below(name, run_settings, name, dict(run or {})) for name, run in value.items()}
        return {name: _with_operator(settings, own.name) for name, settings in made.items()}

    @field_validator("observations", mode="before")
    @classmethod
    def _typed_observations(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        made: dict[Any, Any] = {}
        for name, given in value.items():
            parts = list(given) if isinstance(given, list | tuple) else [given]
            typed = [_below(name, _sensor_settings, part) for part in parts]
            if not typed:
                raise SettingError(f"{name}: empty; accepted: settings such as {{count: 100}}, or a list of them")
            made[name] = tuple(typed) if isinstance(given, list | tuple) else typed[0]
        return made

    @model_validator(mode="after")
    def _check(self) -> "Study":
        self._check_names()
        for name in self.problems:
            self._check_problem(name)
        self._check_files()
        _check_fractions("fractions", self.fractions)
        self._check_training()
        for name, run in self.runs.items():
            self._check_operator(name, run)
            if run.fractions is not None:
                _check_fractions(f"runs.{name}.fractions", run.fractions)
            unknown = set(run.problems or ()) - set(self.problems)
            if unknown:
                raise InputError(f"runs.{name}.problems: {', '.join(sorted(unknown))}; accepted: {', '.join(self.problems)}")
            self._check_physics(name, run)
            try:
                run.check_cases(list(self.problems), self.percents(name))
            except InputError as error:
                raise InputError(f"runs.{name}.{error}") from error
        for case in self.cases():
            try:
                self.run_for(case)
            except InputError as error:
                raise InputError(f"runs.{case.run}.{error}") from error
        self._check_processes()
        for name in self.tuning.candidates:
            if name not in self.runs or load_method(self.runs[name].method).tuned is None:
                raise InputError(f"tuning.candidates: {name!r} is not a run with a weight; runs: {', '.join(self.runs)}")
        self._check_references()
        return self

    def _check_references(self) -> None:
        if self.references is None:
            return
        chosen, fields = self.references.problems, self.references.fields
        if fields is not None and fields > self.data.test:
            raise InputError(f"references.fields {fields}; accepted: at most data.test, {self.data.test}, or null for all")
        if chosen is not None and set(chosen) - set(self.problems):
            unknown = ", ".join(sorted(set(chosen) - set(self.problems)))
            raise InputError(f"references.problems: {unknown}; accepted: {', '.join(self.problems)}")
        for name in chosen or ():
            if not self._has_reference(name):
                raise InputError(
                    f"references.problems: {name} has no reference with likelihood {self.references.likelihood}: its coefficient "
                    "is no known map of a Gaussian field; leave it out"
                )

    def _has_reference(self, problem: str) -> bool:
        assert self.references is not None
        return kind_of(self.make_problem(problem), self.references.likelihood) is not None

    def _check_names(self) -> None:
        """Raises InputError if two results would have one file, also on disks that do not tell capitals from small letters."""
        problems, observations, runs = list(self.problems), list(self.observations), list(self.runs)
        figures = (problems, observations), (problems, observations, runs)
        for kinds in ((problems,), (observations,), (runs,), (list(self.operators),), *figures):
            found: dict[str, tuple[str, ...]] = {}
            for names in product(*kinds):
                other = found.setdefault("-".join(names).casefold(), names)
                if other != names:
                    both = " and ".join("/".join(each) for each in (other, names))
                    raise InputError(f"{both} would have one file name where capitals do not count: rename one")

    def _check_problem(self, name: str) -> None:
        problem, size = self.make_problem(name), self.data.resolution
        try:
            problem.check(size)
        except InputError as error:
            raise InputError(f"problems.{name}: {error} (data.resolution is {size})") from error
        for label in self.observations:
            try:
                self.observed(name, label)
            except InputError as error:
                raise InputError(f"observations.{label}: {error} (at resolution {size})") from error
        for label, run in self.runs.items():
            wanted = run.problems is None or name in run.problems
            if wanted and load_method(run.method).closed_form and not problem.has_closed_form:
                raise InputError(
                    f"runs.{label}: method {run.method!r} needs a closed form, and problem {name!r} has none; "
                    f"set runs.{label}.problems to linear Gaussian problems, or leave the run out"
                )
            if wanted:
                try:
                    method = load_method(run.method)
                    method(run).check(problem, size)
                    if method.prior not in (None, "coefficient"):
                        problem.check_joint(size)
                except InputError as error:
                    raise InputError(f"runs.{label}.{error}") from error

    def _check_operator(self, label: str, run: RunSettings) -> None:
        method = load_method(run.method)
        accepted = [self.operator.name, *self.operators, "solver", *["corrected"] * method.corrects]
        if not method.uses_operator:
            if run.operator in RESERVED:
                raise InputError(f"runs.{label}.operator: {run.operator}; method {run.method!r} has no operator: leave it out")
        elif run.operator not in accepted:
            raise InputError(f"runs.{label}.operator: {run.operator!r}; accepted: {', '.join(accepted)}")

    def _check_physics(self, label: str, run: RunSettings) -> None:
        """Raises InputError if the operator of a run is to be trained with terms that one of its problems does not have."""
        operator = operator_of(run)
        key = "operator" if operator in (self.operator.name, "corrected") else f"operators.{operator}"
        section = self.sections().get(key)
        if not isinstance(section, OperatorSettings) or section.physics is None:
            return
        for name in run.problems or self.problems:
            problem = self.make_problem(name)
            try:
                section.physics.check(problem, problem.solution_space(self.data.resolution).grid)
            except SettingError as error:
                reason = error.below(f"{key}.physics")
                raise InputError(f"{reason} for problem {name!r}, or runs.{label}.problems without it") from error

    def _check_training(self) -> None:
        fractions = [*self.fractions, *(f for run in self.runs.values() for f in run.fractions or ())]
        used = {percent_label(fraction) for fraction in fractions}
        for key, section in self.sections().items():
            pairs = PARTS.get(key, True)  # operators.NAME is trained on them, as operator is
            for percent in section.at:
                if not pairs or percent not in used:
                    accepted = ", ".join(sorted(used, key=float)) if pairs else "none, it sees all coefficients"
                    raise InputError(f"{key}.at.{percent}: no fraction of the study; accepted: {accepted}")
                _below(key, section.training_at, percent)
            if isinstance(section, OperatorSettings):
                padding = section.network.padding
                if round(padding * self.data.resolution) >= self.data.resolution:
                    raise InputError(f"{key}.network.padding {padding}: reflects more nodes than there are")
        for name in self.problems if self.noise.kernel != "white" else ():
            grid = self.make_problem(name).coefficient_space(self.data.resolution).grid
            try:
                RandomFieldNoise(grid, self.noise.kernel, self.noise.length, self.noise.nugget)
            except ValueError as error:
                raise InputError(str(error)) from error

    def _check_processes(self) -> None:
        names = dict.fromkeys(name for case in self.cases() for name in self.models_of(case.run, case.percent))
        for name in names:
            model, count = ModelId.parse(name), self.training_processes
            batch = self.training(model).batch
            if batch % count:
                raise InputError(
                    f"{self.section_name(model)}.training.batch {batch}: cannot be divided among training_processes {count}; "
                    f"accepted: multiples of {count}"
                )

    def _check_files(self) -> None:
        unknown = set(self.data.files) - set(self.problems)
        if unknown:
            raise InputError(
                f"data.files: {', '.join(sorted(unknown))} is no problem of the study; accepted: {', '.join(self.problems)}"
            )
        for name in self.data.files:
            made = self.make_problem(name)
            pde, parameters = self.problems[name].pde, made.parameters.model_dump(mode="json")
            new = {
                key: value for key, value in parameters.items() if key not in chosen(made.parameters)
            }  # where the file is older
            digests: dict[str, str] = {}
            for split in SPLITS:
                path = self.data_file(name, split)
                assert path is not None
                key = f"data.files.{name}.{split}"
                if not path.is_file():
                    raise InputError(f"{key}: no file {path} in {Path.cwd()}; accepted: files of `ddis import`, docs/data.md")
                try:
                    with open_pairs(path, made.shapes(self.data.resolution), getattr(self.data, split)) as pairs:
                        found = pairs.attributes
                except InputError as error:
                    raise InputError(f"{key}: {error}") from error
                if (found.get("pde"), new | (found.get("parameters") or {})) != (pde, parameters):
                    raise InputError(
                        f"{key}: {path} holds {found.get('pde')} with {found.get('parameters')}, "
                        f"and problem {name!r} is {pde} with {parameters}; change problems.{name}, or import the file again"
                    )
                if found["digest"] in digests:
                    raise InputError(f"{key}: {path} holds the same fields as {digests[found['digest']]}; splits must differ")
                digests[found["digest"]] = split

    def data_file(self, problem: str, split: str) -> Path | None:
        """The file that a split is taken from; None if it is generated."""
        files = self.data.files.get(problem)
        return None if files is None else Path(getattr(files, split))

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

    def operator_section(self, model: ModelId) -> OperatorSettings:
        """The settings of an operator."""
        section = self.section(model)
        assert isinstance(section, OperatorSettings)
        return section

    def training(self, model: ModelId) -> TrainingSettings:
        """Training settings of a model at its percent of the pairs."""
        return self.section(model).training_at(model.percent)

    def percents(self, run: str) -> list[str]:
        """Percents of the pairs at which a run is made; 100 for runs that use no pairs."""
        if not self.uses_pairs(run):
            return ["100"]
        own = self.runs[run].fractions
        return [percent_label(f) for f in (self.fractions if own is None else own)]

    def uses_pairs(self, run: str) -> bool:
        """Whether anything that a run needs is trained on pairs."""
        return uses_pairs(self.runs[run])

    def operator_of(self, run: str) -> str | None:
        """The operator that guides a run; None for methods without one."""
        return operator_of(self.runs[run])

    def with_operator(self, settings: RunSettings) -> RunSettings:
        """The settings of a run that may name no operator, with the study's own."""
        return _with_operator(settings, self.operator.name)

    def cases(self) -> list[Case]:
        """Every row of the tables."""
        return [
            Case(problem, observation, run, percent)
            for problem in self.problems
            for observation in self.observations
            for run, settings in self.runs.items()
            if settings.problems is None or problem in settings.problems
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
        return [(p, o) for p in self.problems if p in chosen and self._has_reference(p) for o in self.observations]

    def reference_settings(self, problem: str, observation: str) -> ReferenceSettings:
        """Raises InputError for what has no reference in the study."""
        known = self.reference_cases()
        if self.references is None or (problem, observation) not in known:
            accepted = ", ".join("/".join(case) for case in known) or "none, `references` is not set"
            raise InputError(f"reference {problem}/{observation} is not in the study; accepted: {accepted}")
        return self.references

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

    def shards_of(self, case: Case) -> list[range]:
        """Test fields of each of a run's sampling jobs: whole batches, so that samples do not depend on `shards`."""
        size = self.run_for(case).fields_per_batch
        batches = math.ceil(self.data.test / size)
        count = min(self.shards, batches)
        edges = [size * (batches * shard // count) for shard in range(count)] + [self.data.test]
        return [range(start, stop) for start, stop in pairwise(edges)]

    def share(self, percent: str, available: int) -> int:
        """Number of fields in a percent of `available`."""
        return subset_count(fraction_of(percent), available)

    def inputs(self, stage: str, **what: str) -> dict[str, Any]:
        """What the result of a stage depends on, with all that came before."""
        return Inputs(self, brief=False).of(stage, **what)

    def chosen(self, stage: str, **what: str) -> dict[str, Any]:
        """As `inputs`, without settings at their defaults."""
        return Inputs(self, brief=True).of(stage, **what)

    def versions(self, stage: str, **what: str) -> dict[str, int | str]:
        """Versions of the kinds of result that a stage's own are of; those of its inputs stand in theirs."""
        found: dict[str, int | str] = {stage: STAGES["sample" if stage == "draw" else stage]}
        if stage == "generate":
            name = self.problems[what["problem"]].pde
            found[name] = version(PROBLEM_VERSIONS, name, type(self.make_problem(what["problem"])))
        if stage == "train":
            kinds = self.section(ModelId.parse(what["model"])).versioned()
            found |= {name: version(NETWORKS, name, made) for name, made in kinds.items()}
        if "run" in what:
            name = self.runs[what["run"]].method
            found[name] = version(METHOD_VERSIONS, name, load_method(name))
        return found

    def digest(self, stage: str, **what: str) -> str:
        """16 hexadecimal digits of what is chosen for a stage; a setting that is new in the code, at its default, keeps them."""
        text = json.dumps(self.chosen(stage, **what), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _sensor_settings(given: Any) -> SensorSettings:
    """The settings of one observation operator. Raises InputError."""
    if isinstance(given, SensorSettings):
        return given
    if not isinstance(given, Mapping):
        raise InputError(f"{shown(given)}; accepted: settings such as {{count: 100}}, or a list of them")
    return validated(load_kind(given.get("kind", "nodes")).Settings, given, "{count: 100}")


def operator_of(settings: RunSettings) -> str | None:
    """The operator that guides a run of these settings; None for methods without one."""
    method = load_method(settings.method)
    if not method.uses_operator:
        return None
    return "solver" if method.closed_form else settings.operator


def uses_pairs(settings: RunSettings) -> bool:
    """Whether anything that a run of these settings needs is trained on pairs."""
    return load_method(settings.method).prior not in (None, "coefficient") or operator_of(settings) not in (None, "solver")


def _with_operator(settings: RunSettings, name: str) -> RunSettings:
    """The settings with the study's own operator, where they name none and one is used."""
    given = "operator" in settings.model_fields_set or not load_method(settings.method).uses_operator
    return settings if given else settings.model_copy(update={"operator": name})


def _variant(base: OperatorSettings, given: Any) -> OperatorSettings:
    """An operator with what it does not give from `base`; a network of another architecture is taken whole."""
    if isinstance(given, OperatorSettings):
        return given
    if not isinstance(given, Mapping | None):
        raise InputError(f"{shown(given)}; accepted: settings such as {{network: {{architecture: unet}}}}")
    own, whole = dict(given or {}), base.model_dump(mode="json")
    network = own.get("network")
    if isinstance(network, Mapping) and network.get("architecture", base.name) != base.name:
        del whole["network"]
    return validated(OperatorSettings, merged(whole, own), "{network: {architecture: unet}}")


R = TypeVar("R")


def _below(key: str, call: Callable[..., R], *arguments: Any) -> R:
    """What a call returns; what it refuses is told with the key above it."""
    try:
        return call(*arguments)
    except SettingError as error:
        raise error.below(key) from error
    except InputError as error:
        raise SettingError(f"{key}: {error}") from error


def _check_fractions(key: str, fractions: tuple[float, ...]) -> None:
    labels = [percent_label(fraction) for fraction in fractions]
    if not labels or any(not 0 < fraction <= 1 for fraction in fractions) or "0" in labels or len(set(labels)) < len(labels):
        given = ", ".join(labels) or "none"
        raise InputError(f"{key} {list(fractions)}: percents {given}; accepted: different fractions in (0, 1], percents above 0")
