"""The HDF5 files of a study: written whole or not at all, checked when opened.

Every file carries the attributes `format` (name of the layout), `format_version`, `package_version`, `digest` (SHA-256 of its
arrays), and the caller's own (pde, parameters, seed, configuration digest ...). Arrays are float32 [N, S, S] in physical units.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

import ddis
from ddis.errors import InputError
from ddis.files import atomic_path

FORMAT_VERSION = 1
PAIRS, SAMPLES = "ddis-pairs", "ddis-samples"
_SAMPLE_FIELDS = ("coefficient", "mean", "std", "coefficient_true", "solution_true", "mask", "observation")


@dataclass
class Pairs:
    """Paired fields [N, S, S], float32, with the attributes of their file."""

    coefficient: np.ndarray
    solution: np.ndarray
    attributes: dict[str, Any]


@dataclass
class Samples:
    """Posterior samples of n test fields, and what they were drawn from.

    coefficient [n, K, S, S]; mean, std, coefficient_true, solution_true, mask (bool), observation (0 where there is none)
    [n, S, S]; solution [n, K, S, S] or None: the problem's own solution of each sample.
    """

    coefficient: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    coefficient_true: np.ndarray
    solution_true: np.ndarray
    mask: np.ndarray
    observation: np.ndarray
    solution: np.ndarray | None = None
    attributes: dict[str, Any] = field(default_factory=dict)


def arrays_digest(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over names, shapes, types and values of arrays."""
    sha = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        sha.update(f"{name}{array.shape}{array.dtype}".encode())
        sha.update(array.data)
    return sha.hexdigest()


def write_arrays(path: Path | str, layout: str, arrays: Mapping[str, np.ndarray], attributes: Mapping[str, Any]) -> str:
    """Writes arrays and attributes as one HDF5 file, atomically; returns the digest of the arrays."""
    digest = arrays_digest(arrays)
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array)
        own = {"format": layout, "format_version": FORMAT_VERSION, "package_version": ddis.__version__, "digest": digest}
        for key, value in {**attributes, **own}.items():
            file.attrs[key] = json.dumps(value) if isinstance(value, dict | list) else "" if value is None else value
    return digest


def _decode(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str) and value[:1] in ("{", "["):
        return json.loads(value)
    return None if isinstance(value, str) and value == "" else value


def _open(path: Path, layout: str) -> h5py.File:
    if not path.exists():
        raise InputError(f"{path} does not exist; run the stage that makes it (snakemake does)")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise InputError(f"{path} is truncated or not an HDF5 file; delete it and run the same command again") from error
    found = file.attrs.get("format")
    if found != layout or file.attrs.get("format_version") != FORMAT_VERSION:
        file.close()
        raise InputError(f"{path} is not a {layout} file of version {FORMAT_VERSION} (format: {found!r}); delete or rename it")
    return file


def read_attributes(path: Path | str, layout: str) -> dict[str, Any]:
    """The attributes of a file, after checking its format."""
    with _open(Path(path), layout) as file:
        return {key: _decode(value) for key, value in file.attrs.items()}


def read_arrays(
    path: Path | str, layout: str, names: Sequence[str], optional: Sequence[str] = (), finite: bool = True
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and attributes of a file. Raises InputError if it is missing, truncated, foreign, damaged or not finite."""
    path = Path(path)
    with _open(path, layout) as file:
        try:
            missing = [name for name in names if name not in file]
            if missing:
                raise InputError(f"{path} has no {', '.join(missing)}; it holds {', '.join(file)}")
            arrays = {name: file[name][...] for name in (*names, *optional) if name in file}
            attributes = {key: _decode(value) for key, value in file.attrs.items()}
            stored = set(file)
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error}); delete it and run the same command again") from error
    if stored == set(arrays) and arrays_digest(arrays) != attributes["digest"]:
        raise InputError(f"{path} is damaged: its arrays do not match their digest; delete it and run the same command again")
    bad = [name for name, array in arrays.items() if finite and not np.isfinite(array).all()]
    if bad:
        raise InputError(f"{path} holds NaN or infinite values in {', '.join(bad)}; delete it and make it again")
    return arrays, attributes


def write_pairs(path: Path | str, coefficient: np.ndarray, solution: np.ndarray, attributes: Mapping[str, Any]) -> str:
    """Writes `coefficient` and `solution` [N, S, S] as float32; returns their digest. Raises InputError for non-finite fields."""
    arrays = {"coefficient": coefficient.astype(np.float32), "solution": solution.astype(np.float32)}
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise InputError(f"{name} for {path} has NaN or infinite values; nothing was written")
    return write_arrays(path, PAIRS, arrays, attributes)


def read_pairs(path: Path | str, resolution: int | None = None, count: int | None = None) -> Pairs:
    """Reads pairs; checks resolution and number of fields (at least `count`) if given. Raises InputError."""
    arrays, attributes = read_arrays(path, PAIRS, ["coefficient", "solution"])
    coefficient, solution = arrays["coefficient"], arrays["solution"]
    square = coefficient.ndim == 3 and coefficient.shape[1] == coefficient.shape[2]
    if not square or coefficient.shape != solution.shape:
        raise InputError(f"{path}: shapes {coefficient.shape} and {solution.shape}; accepted: both [N, S, S]")
    if resolution is not None and coefficient.shape[-1] != resolution:
        raise InputError(
            f"{path} has {coefficient.shape[-1]} x {coefficient.shape[-1]} nodes, the study {resolution} x {resolution}; "
            "set data.resolution to the file's, or make the file again"
        )
    if count is not None and len(coefficient) < count:
        raise InputError(f"{path} holds {len(coefficient)} fields, {count} are needed; set data.* to at most what it holds")
    return Pairs(coefficient, solution, attributes)


def write_samples(path: Path | str, samples: Samples) -> str:
    """Writes posterior samples; returns the digest of the arrays."""
    arrays = {name: getattr(samples, name) for name in _SAMPLE_FIELDS}
    if samples.solution is not None:
        arrays["solution"] = samples.solution
    typed = {name: a if a.dtype == bool else a.astype(np.float32) for name, a in arrays.items()}
    return write_arrays(path, SAMPLES, typed, samples.attributes)


def read_samples(path: Path | str) -> Samples:
    """Reads posterior samples. Samples themselves may be non-finite: such a field counts as failed."""
    arrays, attributes = read_arrays(path, SAMPLES, _SAMPLE_FIELDS, optional=["solution"], finite=False)
    return Samples(**arrays, attributes=attributes)
