"""The checks of a study before anything runs: InputError with key, value and what is accepted."""

from collections.abc import Iterable
from itertools import product
from typing import TYPE_CHECKING

from ddis.data.hdf5 import read_attributes
from ddis.data.references import REFERENCES
from ddis.data.store import PAIRS, open_pairs
from ddis.data.subsets import fraction_of, percent_label, subset_count
from ddis.errors import InputError
from ddis.fields.noise import RandomFieldNoise
from ddis.grid import Grid
from ddis.inputs import chosen
from ddis.models.architectures import Architecture
from ddis.models.ids import OPERATOR, PARTS, ModelId
from ddis.observe import KINDS, sensors_of
from ddis.pde.base import Problem, symmetries_of
from ddis.refusals import SettingError, below, told
from ddis.sampling.base import RunSettings
from ddis.sampling.methods import check_set, load_method
from ddis.settings import SPLITS
from ddis.training.coarse import check_restriction
from ddis.training.sections import RESERVED, OperatorSettings, PriorSettings

if TYPE_CHECKING:
    from ddis.config import Study


def check(study: "Study") -> None:
    """Raises InputError for the first thing in a study that cannot be."""
    check_names(study)
    for name in study.problems:
        check_problem(study, name)
    for name in study.data.files:
        check_files(study, name)
    check_fractions("fractions", study.fractions)
    check_training(study)
    check_noise(study)
    for label, run in study.runs.items():
        check_run(study, label, run)
    for case in study.cases():
        with told(f"runs.{case.run}."):
            study.runs[case.run].for_case(case.problem, case.percent)
    check_tuning(study)
    check_references(study)


def check_names(study: "Study") -> None:
    """No two results may have one file, also on disks that do not tell capitals from small letters."""
    problems, observations, runs = list(study.problems), list(study.observations), list(study.runs)
    figures = (problems, observations), (problems, observations, runs)
    for kinds in ((problems,), (observations,), (runs,), (list(study.operators),), *figures):
        found: dict[str, tuple[str, ...]] = {}
        for names in product(*kinds):
            other = found.setdefault("-".join(names).casefold(), names)
            if other != names:
                both = " and ".join("/".join(each) for each in (other, names))
                raise InputError(f"{both} would have one file name where capitals do not count: rename one")


def check_problem(study: "Study", name: str) -> None:
    """A problem at the study's resolution, with each observation and each run on it."""
    problem, size = study.make_problem(name), study.data.resolution
    with told(f"problems.{name}: ", f" (data.resolution is {size})"):
        problem.check(size)
    for label in study.observations:
        parts = study.observations[label]
        kinds = [part.kind for part in (parts if isinstance(parts, tuple) else (parts,))]
        with told(f"observations.{label}: ", f" (at resolution {size})"), KINDS.calling(*kinds):
            study.observed(name, label)
    for label, run in study.runs.items():
        if run.problems is None or name in run.problems:
            check_method(label, run, name, problem, size)
            for observation in run.observations or study.observations if load_method(run.method).sets_values else ():
                with told(f"runs.{label}, observations.{observation}: "):
                    check_set(run.method, problem, sensors_of(study.observations[observation]))


def check_method(label: str, run: RunSettings, name: str, problem: Problem, size: int) -> None:
    method = load_method(run.method)
    if method.closed_form and not problem.has_closed_form:
        raise InputError(
            f"runs.{label}: method {run.method!r} needs a closed form, and problem {name!r} has none; "
            f"set runs.{label}.problems to linear Gaussian problems, or leave the run out"
        )
    with told(f"runs.{label}."):
        method(run).check(problem, size)


def check_files(study: "Study", name: str) -> None:
    """The user's own files of a problem hold its fields, others in each split."""
    if name not in study.problems:
        unknown = ", ".join(sorted(set(study.data.files) - set(study.problems)))
        raise InputError(f"data.files: {unknown} is no problem of the study; accepted: {', '.join(study.problems)}")
    problem, pde = study.make_problem(name), study.problems[name].pde
    parameters = problem.parameters.model_dump(mode="json")
    new = {key: value for key, value in parameters.items() if key not in chosen(problem.parameters)}  # where the file is older
    splits: dict[str, str] = {}
    for split in SPLITS:
        path, key = study.data_file(name, split), f"data.files.{name}.{split}"
        if path is None:
            continue
        if not path.is_file():
            raise InputError(f"{key}: no file {path} in {path.cwd()}; accepted: files of `ddis import`, docs/data.md")
        with (
            told(f"{key}: "),
            open_pairs(path, problem.shapes(study.data.resolution), getattr(study.data, split)) as pairs,
        ):
            found = pairs.attributes
        if (found.get("pde"), new | (found.get("parameters") or {})) != (pde, parameters):
            raise InputError(
                f"{key}: {path} holds {found.get('pde')} with {found.get('parameters')}, "
                f"and problem {name!r} is {pde} with {parameters}; change problems.{name}, or import the file again"
            )
        if found["digest"] in splits:
            raise InputError(f"{key}: {path} holds the same fields as {splits[found['digest']]}; splits must differ")
        splits[found["digest"]] = split


def check_known(key: str, names: Iterable[str], known: Iterable[str]) -> None:
    unknown = ", ".join(sorted(set(names) - set(known)))
    if unknown:
        raise InputError(f"{key}: {unknown}; accepted: {', '.join(known)}")


def check_fractions(key: str, fractions: tuple[float, ...]) -> None:
    labels = [percent_label(fraction) for fraction in fractions]
    if not labels or any(not 0 < fraction <= 1 for fraction in fractions) or "0" in labels or len(set(labels)) < len(labels):
        given = ", ".join(labels) or "none"
        raise InputError(f"{key} {list(fractions)}: percents {given}; accepted: different fractions in (0, 1], percents above 0")


def check_training(study: "Study") -> None:
    """What is changed at a percent, and the padding of operators."""
    fractions = [*study.fractions, *(f for run in study.runs.values() for f in run.fractions or ())]
    used = {percent_label(fraction) for fraction in fractions}
    for key, section in study.sections().items():
        pairs = PARTS.get(key, True)  # operators.NAME is trained on them, as operator is
        for percent in section.at:
            if not pairs or percent not in used:
                accepted = ", ".join(sorted(used, key=float)) if pairs else "none, it sees all coefficients"
                raise InputError(f"{key}.at.{percent}: no fraction of the study; accepted: {accepted}")
            below(key, section.training_at, percent)
        if isinstance(section, OperatorSettings):
            padding = section.network.padding
            if section.network.padded(study.data.resolution) >= study.data.resolution:
                raise InputError(f"{key}.network.padding {padding}: reflects more nodes than there are")


def check_noise(study: "Study") -> None:
    """The diffusion's noise can be drawn on the grid of each problem."""
    for name in study.problems if study.noise.kernel != "white" else ():
        grid = study.make_problem(name).coefficient_space(study.data.resolution).grid
        RandomFieldNoise(grid, study.noise.kernel, study.noise.length, study.noise.nugget)


def check_run(study: "Study", label: str, run: RunSettings) -> None:
    """The operator, percents and problems of a run, and the trainings that it needs."""
    method = load_method(run.method)
    accepted = [study.operator.name, *study.operators, "solver", *["corrected"] * method.corrects]
    if not method.uses_operator and run.operator in RESERVED:
        raise InputError(f"runs.{label}.operator: {run.operator}; method {run.method!r} has no operator: leave it out")
    if method.uses_operator and run.operator not in accepted:
        raise InputError(f"runs.{label}.operator: {run.operator!r}; accepted: {', '.join(accepted)}")
    if run.fractions is not None:
        check_fractions(f"runs.{label}.fractions", run.fractions)
    check_known(f"runs.{label}.problems", run.problems or (), study.problems)
    check_known(f"runs.{label}.observations", run.observations or (), study.observations)
    for percent in study.percents(label):
        for model in map(ModelId.parse, study.models_of(label, percent)):
            check_model(study, model, run.problems or study.problems, label)
            check_start(study, model, label, run)
    with told(f"runs.{label}."):
        run.check_cases(list(study.problems), study.percents(label))


def check_model(study: "Study", model: ModelId, problems: Iterable[str], run: str = "") -> None:
    """A network can be trained as its section says, on each of these problems.

    run: that needs the network, and might do without a problem; "": none does, and the network is trained by hand.
    """
    for name in problems:
        made = study.make_problem(name)
        if model.percent and model.part != OPERATOR:
            key, accepted = (f"runs.{run}", f"; accepted: runs.{run}.problems without it") if run else (model, "")
            with told(f"{key}: problem {name!r}: ", accepted):
                made.check_joint(study.data.resolution)
        check_physics(study, model, name, run)
        check_resolution(study, model, name, run)
        check_augmentation(study, model, name, run)
    check_filter(study, model)
    batch, count = study.training(model).batch, study.training_processes
    if batch % count:
        raise InputError(
            f"{study.section_name(model)}.training.batch {batch}: cannot be divided among training_processes {count}; "
            f"accepted: multiples of {count}"
        )


def or_without(run: str) -> str:
    """What else is accepted where a network that a run needs cannot be trained on a problem."""
    return f", or runs.{run}.problems without it" if run else ""


def check_physics(study: "Study", model: ModelId, problem: str, run: str) -> None:
    """An operator is not to be trained with terms that the problem does not have."""
    section = study.section(model)
    if not isinstance(section, OperatorSettings) or section.physics is None:
        return
    made = study.make_problem(problem)
    try:
        section.physics.check(made, made.solution_space(study.data.resolution).grid)
    except SettingError as error:
        reason = error.below(f"{study.section_name(model)}.physics")
        raise InputError(f"{reason} for problem {problem!r}{or_without(run)}") from error


def check_resolution(study: "Study", model: ModelId, problem: str, run: str) -> None:
    """A network that is trained on fewer nodes is one that can be used on all, and fields can be restricted to them."""
    section, size = study.section(model), study.data.resolution
    resolution = study.training_resolution(model)
    if resolution == size:
        return
    key = f"{study.section_name(model)}.resolution {resolution}"
    if size % resolution:
        accepted = ", ".join(str(divisor) for divisor in range(4, size + 1) if size % divisor == 0)
        raise InputError(f"{key}: does not divide data.resolution, {size}; accepted: {accepted}")
    if isinstance(section, OperatorSettings) and section.physics is not None:
        raise InputError(f"{key}: the equation is that of all nodes; accepted: {size}, or no {study.section_name(model)}.physics")
    if isinstance(section, PriorSettings) and (model.white or study.noise_of(model).kernel == "white"):
        needed = f" for run {run!r}" if run else ""
        raise InputError(f"{key}: white noise is another one on other nodes; accepted: {size}{needed}")
    below(study.section_name(model), section.check_finer, resolution)
    made, fields = study.make_problem(problem), 1 if model.part == "prior" else 2
    with told(f"{key}: problem {problem!r}: ", f"; accepted: {size}{or_without(run)}"):
        for fine, coarse in list(zip(made.spaces(size), made.spaces(resolution), strict=True))[:fields]:
            check_restriction(fine.grid, coarse.grid, size // resolution)
    if isinstance(section, OperatorSettings):
        check_padding(study.section_name(model), section.network, fine.grid, coarse.grid)


def check_start(study: "Study", model: ModelId, label: str, run: RunSettings) -> None:
    """A run that starts on a coarser grid has a prior that can be used there."""
    section, start = study.section(model), getattr(run, "start_resolution", None)
    trained = study.training_resolution(model)
    if start not in (None, trained) and isinstance(section, PriorSettings) and section.filters:
        name, known = study.section_name(model), "null" if trained == study.data.resolution else f"null, {trained}"
        raise InputError(
            f"runs.{label}.start_resolution {start}: {name}.preconditioning wiener has no filter of the modes of so many nodes; "
            f"accepted: {known}, or preconditioning edm"
        )


def check_filter(study: "Study", model: ModelId) -> None:
    """A filter is one of several fields."""
    section = study.section(model)
    fields = subset_count(fraction_of(model.percent), study.data.train) if model.percent else study.data.train
    if isinstance(section, PriorSettings) and section.filters and fields < 2:
        name = study.section_name(model)
        raise InputError(f"{name}.preconditioning wiener: of {fields} training field; accepted: edm, or two fields and more")


def check_padding(key: str, network: Architecture, fine: Grid, coarse: Grid) -> None:
    """The padding of each bounded axis is the same share of its nodes on both grids."""
    for many, few, wraps in zip(fine.shape, coarse.shape, fine.periodic, strict=True):
        if not wraps and not network.pads_alike(many, few):
            pads = f"{network.padded(few)} of {few} nodes, {network.padded(many)} of {many}"
            raise InputError(f"{key}.network.padding {network.padding:g}: {pads}; accepted: 0, or multiples of 1/{few}")


def check_augmentation(study: "Study", model: ModelId, problem: str, run: str) -> None:
    """A prior is not to be trained with images of fields that may have another distribution."""
    section = study.section(model)
    if not isinstance(section, PriorSettings) or not section.augmentation:
        return
    file, pairs = study.data_file(problem, "train"), bool(model.percent)
    if file is not None or not symmetries_of(study.make_problem(problem), pairs):
        fields = "pairs" if pairs else "coefficients"
        why = "have no known symmetry" if file is None else f"come from {file}"
        raise InputError(
            f"{study.section_name(model)}.augmentation {section.augmentation:g}: the {fields} of problem {problem!r} {why}; "
            f"accepted: 0{or_without(run)}"
        )


def check_tuning(study: "Study") -> None:
    for name in study.tuning.candidates:
        if name not in study.runs or load_method(study.runs[name].method).tuned is None:
            raise InputError(f"tuning.candidates: {name!r} is not a run with a weight; runs: {', '.join(study.runs)}")


def check_references(study: "Study") -> None:
    if study.references is None:
        return
    wanted, fields = study.references.problems or (), study.references.fields
    if fields is not None and fields > study.data.test:
        raise InputError(f"references.fields {fields}; accepted: at most data.test, {study.data.test}, or null for all")
    check_known("references.problems", wanted, study.problems)
    check_reference_files(study)
    for name in wanted:
        if not any((name, observation) in study.reference_cases() for observation in study.observations):
            raise InputError(
                f"references.problems: {name} has no reference: its coefficient is no known map of a Gaussian field; leave it out"
            )


def check_reference_files(study: "Study") -> None:
    """References of others belong to the fields of the test split, which is taken from the file beside them."""
    assert study.references is not None
    check_known("references.files", study.references.files, study.problems)
    for problem, observation in ((p, o) for p, files in study.references.files.items() for o in files):
        key, path, data = f"references.files.{problem}.{observation}", study.reference_file(problem, observation), None
        assert path is not None
        check_known(f"references.files.{problem}", [observation], study.observations)
        with told(f"{key}: "):
            found = read_attributes(path, REFERENCES)
        if (test := study.data_file(problem, "test")) is not None:
            data = read_attributes(test, PAIRS)["digest"]
        if data is None or found.get("pairs") != data:
            raise InputError(f"{key}: {path} is not of the test split; accepted: data.files.{problem}.test of the same import")
