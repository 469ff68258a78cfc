"""Weights as safetensors, with what is needed to rebuild the model as JSON beside them. Nothing is ever unpickled."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ddis.errors import InputError
from ddis.files import atomic_path


def save_tensors(path: Path | str, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    """Writes tensors and JSON-able metadata to one file, atomically."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_path(path) as temporary:
        # Not save_file: its error on a full disk is no OSError.
        temporary.write_bytes(save(contiguous, metadata={"ddis": json.dumps(metadata)}))


def load_tensors(path: Path | str, digest: str | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of a file written by `save_tensors`.

    Raises InputError if it is missing, truncated or foreign, or was made with another configuration than `digest`.
    """
    if not Path(path).exists():
        raise InputError(f"{path} does not exist; run the training that makes it (snakemake does)")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {})["ddis"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        reason = f"is truncated or not a checkpoint of ddis ({error}); delete it and run the same command again"
        raise InputError(f"{path} {reason}") from error
    if digest is not None and metadata.get("configuration") != digest:
        raise InputError(
            f"{path} was made with another configuration ({metadata.get('configuration')}, the study's is {digest}); "
            "run snakemake, which trains it again, or restore the configuration"
        )
    return tensors, metadata


def weights(module: nn.Module) -> dict[str, Tensor]:
    """Copies of the module's weights by name (neuraloperator's state_dict also holds a `_metadata` entry: left out)."""
    return {name: t.detach().clone() for name, t in module.state_dict().items() if isinstance(t, Tensor)}
