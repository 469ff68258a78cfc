"""What each stage of a study reads and writes, and the record it leaves of that: results/<study>/provenance/<stage>/....json.

A record is written when all files of its stage are there. It holds what `provenance.collect` says (settings, seed, versions,
commit, device, command), the resolved configuration, and the SHA-256 of the stage's inputs, taken before it began, and of its
outputs. Files inside the study are named from its folder, others as the configuration names them.
"""

import os
import tempfile
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ddis.config import Case, Study
from ddis.data.subsets import fraction_of, subset_count
from ddis.errors import InputError
from ddis.evaluation.calibration import MIN_SAMPLES
from ddis.files import write_error, write_json
from ddis.models.ids import ModelId
from ddis.provenance import input_digest
from ddis.sampling.methods import load_method
from ddis.settings import SPLITS
from ddis.stages.experiments import paper_files, pictured
from ddis.stages.layout import (
    check_path,
    data_path,
    figure_names,
    guidance_path,
    model_folder,
    models,
    reference_path,
    samples_path,
    table_names,
    tuning_path,
)
from ddis.steps import Step, read_record, record_name

BESIDE = ("benchmarks", "logs", "provenance", "work")  # folders of a study that hold no outputs


def steps(study: Study) -> list[Step]:
    """All that a finished study is made of, in the order of its making."""
    made = [Step("study")]
    for problem in study.problems:
        made += [Step("generate", {"problem": problem, "split": split}) for split in SPLITS]
        made.append(Step("card", {"problem": problem}))
        names = models(study, problem)
        percents = dict.fromkeys(percent for name in names if (percent := ModelId.parse(name).percent))
        made += [Step("pairs", {"problem": problem, "percent": percent}) for percent in percents]
        made += [Step("train", {"problem": problem, "model": name}) for name in names]
    made += [Step("sample", dict(vars(case))) for case in study.cases()]
    made += [Step("reference", {"problem": p, "observation": o}) for p, o in study.reference_cases()]
    return [*made, Step("tables"), Step("figures"), Step("report")]


def tuning_steps(study: Study) -> list[Step]:
    """What `snakemake tune` makes."""
    tuned = [case for case in study.cases() if case.run in study.tuning.candidates]
    return [Step("tune", dict(vars(case))) for case in tuned] + ([Step("tuning")] if tuned else [])


def check_steps(study: Study) -> list[Step]:
    """What `snakemake check` makes: of runs with enough samples, at percents with validation pairs."""
    return [Step("check", dict(vars(case))) for case in study.cases() if why_unchecked(study, case) is None]


def why_unchecked(study: Study, case: Case) -> str | None:
    """Why `ddis check` can say nothing of a case; None if it can."""
    samples, pairs = study.run_for(case).samples, subset_count(fraction_of(case.percent), study.data.validation)
    if samples < MIN_SAMPLES:
        return f"runs.{case.run}.samples {samples}; accepted for `ddis check`: {MIN_SAMPLES} or more"
    if pairs < 2:
        return (
            f"percent {case.percent}: {pairs} of {study.data.validation} validation pairs; accepted for `ddis check`: 2 or more"
        )
    return None


def paper_steps(study: Study) -> list[Step]:
    """What `snakemake paper` makes."""
    return [*(Step("guidance", {"problem": problem}) for problem in study.guided()), Step("paper")]


def asked_steps(study: Study) -> list[Step]:
    """What is made only if it is asked for, by a target of its own."""
    return [*tuning_steps(study), *paper_steps(study), *check_steps(study)]


def outputs_of(study: Study, step: Step) -> list[Path]:
    """The files that a step writes."""
    folder, arguments = study.folder, step.arguments
    match step.stage:
        case "study":
            return [folder / "config.yaml"]
        case "generate":
            return [data_path(study, **arguments)]
        case "card":
            return [data_path(study, arguments["problem"], "train").with_name(n) for n in ("card.md", "card.yaml", "pairs.png")]
        case "pairs":
            return [data_path(study, arguments["problem"], "train").with_name(f"pairs-{arguments['percent']}.csv")]
        case "train":
            names = ["weights.safetensors", "model.json", "history.csv"] + ["denoising.csv"] * (arguments["model"] == "prior")
            return [model_folder(study, **arguments) / name for name in names]
        case "sample":
            return [samples_path(study, **arguments)]
        case "reference":
            return [reference_path(study, **arguments)]
        case "tune":
            return [tuning_path(study, **arguments)]
        case "check":
            return [check_path(study, **arguments)]
        case "guidance":
            return [guidance_path(study, **arguments).with_name(n) for n in ("gradients.csv", "README.md", "attenuation.png")]
        case "tables":
            return [folder / "tables" / name for name in table_names(study)]
        case "figures":
            return [folder / "figures" / name for name in figure_names(study)]
        case "tuning":
            runs = dict.fromkeys(tuple(s.arguments.values())[:-1] for s in tuning_steps(study)[:-1])  # without the percent
            return [folder / "figures" / f"tuning-{'-'.join(names)}.png" for names in runs]
        case "report":
            return [folder / "report.html"]
        case "paper":
            return [folder / "paper" / name for name in paper_files(study)]
        case "draw":  # batches for `sample`, which removes them
            return []
    raise ValueError(f"stage {step.stage!r}: its files are not listed in ddis/stages/records.py")


def inputs_of(study: Study, step: Step) -> list[Path]:
    """The files that a step reads."""
    folder, arguments = study.folder, step.arguments
    match step.stage:
        case "generate":
            source = study.data_file(**arguments)
            return [] if source is None else [source]
        case "card":
            return [data_path(study, arguments["problem"], split) for split in SPLITS]
        case "train":
            return [data_path(study, arguments["problem"], split) for split in ("train", "validation")]
        case "sample" | "draw" | "tune" | "check":
            splits = ("train", "validation" if step.stage in ("tune", "check") else "test")
            data = [data_path(study, arguments["problem"], split) for split in splits]
            models = study.models_of(arguments["run"], arguments["percent"])
            made = [outputs_of(study, Step("train", {"problem": arguments["problem"], "model": name})) for name in models]
            graded = load_method(study.runs[arguments["run"]].method).uses_excess
            names = ["weights.safetensors", "model.json"] + ["denoising.csv"] * graded
            return data + [path for paths in made for path in paths if path.name in names]
        case "guidance":
            problem = arguments["problem"]
            names = ["prior", *(f"{part}-{p}" for part in ("joint", "operator") for p in study.guided().get(problem, []))]
            folders = [model_folder(study, problem, name) for name in names]
            networks = [folder / name for folder in folders for name in ("weights.safetensors", "model.json")]
            return [data_path(study, problem, split) for split in ("train", "test")] + networks
        case "reference":
            source = study.reference_file(**arguments)
            data = [data_path(study, arguments["problem"], split) for split in ("train", "test")]
            return data + ([] if source is None else [source])
        case "tables":
            references = [reference_path(study, *case) for case in study.reference_cases()]
            return [samples_path(study, **vars(case)) for case in study.cases()] + references
        case "figures":
            return inputs_of(study, Step("tables")) + _tables(study) + _of_models(study, "history.csv", "denoising.csv")
        case "tuning":
            return [tuning_path(study, **s.arguments) for s in tuning_steps(study)[:-1]]
        case "report":
            cards = [path for p in study.problems for path in outputs_of(study, Step("card", {"problem": p}))]
            shown = outputs_of(study, Step("figures")) + [path for path in cards if path.suffix != ".yaml"]
            return _tables(study) + shown + _of_models(study, "model.json", "denoising.csv")
        case "paper":
            tables = [folder / "tables" / name for name in ("errors.csv", "claims.csv")]
            guided = [guidance_path(study, problem) for problem in study.guided()]
            return tables + [samples_path(study, **vars(case)) for case in pictured(study)] + guided
    return []


def _tables(study: Study) -> list[Path]:
    return [path for path in outputs_of(study, Step("tables")) if path.suffix == ".csv"]


def _of_models(study: Study, *names: str) -> list[Path]:
    trained = [Step("train", {"problem": p, "model": name}) for p in study.problems for name in models(study, p)]
    return [path for step in trained for path in outputs_of(study, step) if path.name in names]


def name_of(study: Study, path: Path) -> str:
    """A file's name in records."""
    return path.relative_to(study.folder).as_posix() if path.is_relative_to(study.folder) else str(path)


def digests(study: Study, paths: Iterable[Path]) -> dict[str, str]:
    """SHA-256 by name of those files that are there."""
    return {name_of(study, path): input_digest(path) for path in paths if path.is_file()}


def input_digests(study: Study, step: Step) -> dict[str, str]:
    """SHA-256 by name of the inputs of a step that are there. That of data stands in its own record, while it is older than that:
    a split may have gigabytes, of which a step reads a few numbers."""
    known: dict[str, str] = {}
    if "problem" in step.arguments and step.stage != "generate":
        for split in SPLITS:
            made = Step("generate", {"problem": step.arguments["problem"], "split": split})
            path, note = data_path(study, **made.arguments), study.folder / record_name(made)
            if path.is_file() and note.is_file() and path.stat().st_mtime_ns <= note.stat().st_mtime_ns:
                known |= (read_record(note) or {"outputs": {}})["outputs"]
    return {n: known.get(n) or input_digest(p) for p in inputs_of(study, step) if p.is_file() for n in [name_of(study, p)]}


def write_record(study: Study, step: Step, collected: dict[str, Any], read: dict[str, str]) -> None:
    """Writes the record of a step; `collected` is from `provenance.collect`, `read` the digests of what was read."""
    content = {
        "stage": step.stage,
        "arguments": step.arguments,
        "configuration": None if step.stage == "study" else step.digest(study),
        **collected,
        "study": study.resolved(),
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        "inputs": read,
    }
    written = outputs_of(study, step)
    while written:
        before = [path.stat() for path in written]
        write_json(study.folder / record_name(step), content | {"outputs": digests(study, written)})
        # Another process that makes the same files may have renamed its own into place.
        after = [path.stat() for path in written]
        if [(s.st_ino, s.st_mtime_ns) for s in before] == [(s.st_ino, s.st_mtime_ns) for s in after]:
            return


def check_folders(study: Study, step: Step) -> None:
    """Raises InputError before any work if a step could not write its files, or would write outside the results folder."""
    check_links(study.folder)
    for folder in dict.fromkeys(path.parent for path in outputs_of(study, step)):
        check_writable(folder)


def check_places(study: Study) -> None:
    """Raises InputError if a file stands where a study has a folder. Writes nothing, so that a dry run can ask it."""
    outputs = {path for step in [*steps(study), *asked_steps(study)] for path in outputs_of(study, step)}
    folders = {folder for path in outputs for folder in path.parents} | {study.folder / name for name in BESIDE}
    for folder in sorted(folders):
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{folder} is a file where study {study.study} has a folder; accepted: a folder, or nothing")


def check_writable(folder: Path) -> None:
    """Makes the folder if it is not there. Raises InputError if nothing can be written into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0" * 4096)
            file.flush()
    except OSError as error:
        raise write_error(folder, error) from error


def check_links(folder: Path) -> None:
    """Raises InputError if a symbolic link in a study's folder leads out of the results folder; that folder may be one itself."""
    root = folder.parent.resolve()
    inside = (Path(parent, name) for parent, folders, files in os.walk(folder) for name in folders + files)
    for link in (path for path in (folder, *inside) if path.is_symlink()):
        target = Path(os.path.realpath(link))
        if not target.is_relative_to(root):
            raise InputError(f"{link} is a link to {target}, outside {root}; remove it (only {folder.parent} itself may be one)")
