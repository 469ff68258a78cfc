"""What every stage shares: threads, device, tracking, and the paths of a study."""

from __future__ import annotations

import ctypes
import hashlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from ddis import provenance, tracking
from ddis.config import Study
from ddis.data.hdf5 import read_attributes
from ddis.data.store import PAIRS, Pairs, PairsFile, open_pairs, read_pairs
from ddis.data.subsets import fraction_of, paired_subset
from ddis.errors import InputError
from ddis.lazy import torch
from ddis.models.ids import ModelId
from ddis.models.normalisation import KINDS, Normalisation, normalisation
from ddis.stages.layout import data_path
from ddis.stages.records import check_folders, input_digests, write_record
from ddis.stages.takeover import only_process
from ddis.steps import Step, check_settings

READING = ("card", "pairs", "tables", "figures", "tuning", "report", "paper")  # the stages that compute nothing with torch


def resolve_device(name: str) -> torch.device:
    """The torch device of the setting `device`: auto takes a GPU if there is one. Raises InputError for cuda without one."""
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("device 'cuda': no usable GPU was found; accepted here: auto, cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def gpu_is_there() -> bool:
    """Whether torch finds a GPU. Where the system shows none, torch is not imported to ask it."""
    devices = [path for name in ("nvidia*", "dxg", "kfd") for path in Path("/dev").glob(name)]
    return bool(devices) and resolve_device("auto").type == "cuda"


def keep_freed_memory() -> None:
    """Makes glibc keep the memory that is freed, instead of asking the kernel for zeroed pages at every large tensor.

    The neural operator on 64 fields of 64 x 64 nodes, forward and back, takes 17 ms a field instead of 31.
    """
    if sys.platform == "linux":
        m_trim_threshold, m_mmap_max = -1, -4
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            libc.mallopt(m_mmap_max, 0)
            libc.mallopt(m_trim_threshold, 2**31 - 1)


@contextmanager
def settle(study: Study) -> Iterator[None]:
    """Sets what a stage's numbers and speed depend on beside its settings: threads, determinism, float32 on GPUs, memory."""
    keep_freed_memory()
    torch.set_num_threads(study.threads)
    torch.set_deterministic_debug_mode("warn")  # `use_deterministic_algorithms` imports the compiler: 1.1 s
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # it costs 1 to 7 % of a step
    torch.backends.cudnn.allow_tf32 = False  # convolutions would be rounded to ten bits
    with threadpool_limits(study.threads):
        yield


@contextmanager
def stage(study: Study, name: str, **arguments: str) -> Iterator[tuple[tracking.StageRun, dict[str, Any]]]:
    """Sets threads and determinism, opens the stage's tracking run; yields it with the provenance record.

    The record is written beside the results when the block ends well. Raises InputError where the results cannot be written.
    """
    step, inputs, computing = Step(name, arguments), study.inputs(name, **arguments), name not in READING
    check_folders(study, step)
    with settle(study) if computing else threadpool_limits(study.threads):
        record = provenance.collect(inputs, study.seed, str(resolve_device(study.device)) if computing else "cpu")
        read = input_digests(study, step)
        tags = {**provenance.tags(record), **subject(study, name, arguments), "ddis.configuration": step.digest(study)}
        mark = study.folder / "work" / "running" / step.label
        with only_process(mark, step.label), tracking.stage_run(study.study, step.label, inputs, tags) as run:
            yield run, record
            write_record(study, step, record, read)


def subject(study: Study, name: str, arguments: dict[str, str]) -> dict[str, str]:
    """What a stage is about, for tracking: its arguments, the method of its run, the percent of its model."""
    tags = {"stage": name, **arguments}
    if "run" in arguments:
        tags["method"] = study.runs[arguments["run"]].method
    if "model" in arguments:
        model = ModelId.parse(arguments["model"])
        tags |= {"network": model.kind, "percent": model.percent or "100"}
    return tags


def fingerprint(study: Study, problem: str, name: str, digest: str) -> str:
    """16 hexadecimal digits of all that unfinished work of a stage was made from: configuration with its versions, and data."""
    splits = ("train", "test" if name == "sample" else "validation")
    data = [read_attributes(data_path(study, problem, split), PAIRS)["digest"] for split in splits]
    return hashlib.sha256("".join([digest, *data]).encode()).hexdigest()[:16]


def load_pairs(study: Study, problem: str, split: str) -> Pairs:
    """The pairs of a split, checked against the study. Raises InputError."""
    path = data_path(study, problem, split)
    pairs = read_pairs(path, study.make_problem(problem).shapes(study.data.resolution), getattr(study.data, split))
    _check_configuration(study, problem, split, pairs.attributes)
    return pairs


@contextmanager
def open_split(study: Study, problem: str, split: str) -> Iterator[PairsFile]:
    """The pairs of a split, checked as by `load_pairs`, to be read block by block. Raises InputError."""
    path = data_path(study, problem, split)
    with open_pairs(path, study.make_problem(problem).shapes(study.data.resolution), getattr(study.data, split)) as pairs:
        _check_configuration(study, problem, split, pairs.attributes)
        pairs.verify()
        yield pairs


def training_normalisation(study: Study, problem: str, kind: str, rows: np.ndarray | None = None) -> Normalisation:
    """Mean and standard deviation of training fields, all or `rows`, see `ddis.models.normalisation`. Raises InputError.

    Those of all stand in the file, and are found again only if it is from before they did, or the fields are constant.
    """
    attributes = read_attributes(data_path(study, problem, "train"), PAIRS)
    _check_configuration(study, problem, "train", attributes)
    stored = attributes.get("statistics", {}).get(kind)
    if stored is not None and (rows is None or len(rows) == study.data.train):
        return Normalisation(**stored)
    with open_split(study, problem, "train") as pairs:
        fields = np.concatenate([block for (block,) in pairs.blocks(rows, [KINDS[kind]])])
    return normalisation(study.make_problem(problem), kind, fields)


def _check_configuration(study: Study, problem: str, split: str, attributes: dict[str, Any]) -> None:
    path, step = data_path(study, problem, split), Step("generate", {"problem": problem, "split": split})
    check_settings(study, step, path, attributes.get("configuration"))


def training_share(study: Study, percent: str) -> np.ndarray:
    """Indices of the paired training fields at a percent."""
    return paired_subset(fraction_of(percent), study.data.train, study.seed)


def validation_share(study: Study, percent: str) -> np.ndarray:
    """Indices of the validation pairs that a method may use at a percent, for stopping, tuning and R."""
    return paired_subset(fraction_of(percent), study.data.validation, study.seed, "validation-pairs")


def has_both_signs(study: Study, problem: str, observation: str) -> bool:
    """Whether the posterior has a and -a alike: an even problem of which the solution alone is observed."""
    return study.make_problem(problem).even and all(
        part.of == "solution" for part in study.placed(problem, observation).sensors.parts
    )
