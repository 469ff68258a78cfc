"""Weights as safetensors, with what is needed to rebuild the model as JSON beside them. Nothing is ever unpickled."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from safetensors import safe_open

from ddis.errors import DamagedError, InputError
from ddis.files import atomic_path
from ddis.lazy import torch
from ddis.reading import REPAIR, cannot_read, safetensors_damage

if TYPE_CHECKING:
    from torch import Tensor, nn


def save_tensors(path: Path | str, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    """Writes tensors and JSON-able metadata to one file, atomically."""
    from safetensors.torch import save

    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_path(path) as temporary:
        # Not save_file: its error on a full disk is no OSError.
        temporary.write_bytes(save(contiguous, metadata={"ddis": json.dumps(metadata)}))


def load_tensors(path: Path | str, digest: str | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of a file written by `save_tensors`.

    Raises InputError if it is missing, cannot be read or is foreign, or was made with another configuration than `digest`;
    DamagedError if its bytes prove damage.
    """
    path = Path(path)
    with _open(path) as (file, metadata):
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    if digest is not None and metadata.get("configuration") != digest:
        raise InputError(
            f"{path} was made with another configuration ({metadata.get('configuration')}, the study's is {digest}); "
            "run snakemake, which trains it again, or restore the configuration"
        )
    return tensors, metadata


def load_unfinished(path: Path | str, digest: str | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """As `load_tensors`, for unfinished work, which the same command makes again where it is not there."""
    try:
        return load_tensors(path, digest)
    except DamagedError as error:
        raise DamagedError(str(error).replace(REPAIR, "remove it and run the same command again")) from error


def check_header(path: Path | str) -> None:
    """Raises as `load_tensors` does for a file that is no checkpoint or is truncated; loads no tensor."""
    with _open(Path(path), "numpy"):
        pass


@contextmanager
def _open(path: Path, framework: Literal["pt", "numpy"] = "pt") -> Iterator[tuple[Any, dict[str, Any]]]:
    """The open file and its metadata."""
    try:
        with path.open("rb"):
            pass  # what safetensors says of a file that cannot be opened may be wrong
        with safe_open(path, framework=framework) as file:
            text = (file.metadata() or {}).get("ddis")
            metadata = None if text is None else json.loads(text)
            if not isinstance(metadata, dict):
                raise InputError(f"{path} is a safetensors file, but not a checkpoint of ddis")
            yield file, metadata
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; run the training that makes it (snakemake does)") from error
    except Exception as error:  # a damaged file can fail anywhere in its parser
        raise cannot_read(path, error, safetensors_damage) from error


def weights(module: nn.Module) -> dict[str, Tensor]:
    """Copies of the module's weights by name (neuraloperator's state_dict also holds a `_metadata` entry: left out)."""
    return {name: t.detach().clone() for name, t in module.state_dict().items() if isinstance(t, torch.Tensor)}
