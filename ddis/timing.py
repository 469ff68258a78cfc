"""Time and memory that computations take on this device."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

PATIENCE = 2.0  # seconds


def free_memory(device: torch.device) -> int:
    """Bytes."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    known = Path("/proc/meminfo")
    if known.is_file():
        lines = dict(line.split(":", 1) for line in known.read_text(encoding="ascii").splitlines())
        return 1024 * int(lines["MemAvailable"].split()[0])
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def clock(device: torch.device) -> float:
    """The time when all work so far is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def seconds_of(call: Callable[[], Any], device: torch.device) -> float:
    """Of a call; of the second, if the first was short: it made what later ones find."""
    for _ in range(2):
        begin = clock(device)
        call()
        seconds = clock(device) - begin
        if seconds > PATIENCE:
            break
    return seconds


def kept_bytes(call: Callable[[], Tensor], network: nn.Module) -> float:
    """Bytes of the tensors that a call keeps for its gradient, without the weights."""
    weights = {p.untyped_storage().data_ptr() for p in network.parameters()}
    found: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        out = call()
    del out
    return float(sum(found.values()))
