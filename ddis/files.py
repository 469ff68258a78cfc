"""Writing files so that a half-written one never stands under its final name."""

import csv
import errno
import json
import os
import platform
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ddis.errors import InputError


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yields a temporary name in the folder of `path`; renames it to `path` when the block ends well, removes it otherwise.

    Two writers of the same path do not meet: each has its own temporary name, and the last rename wins.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path)
        temporary = path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}.tmp")
        try:
            yield temporary
            descriptor = os.open(temporary, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise write_error(path, error) from error


def write_error(path: Path, error: OSError) -> InputError:
    """What a user is told of a file that cannot be written; of a full disk also where it is mounted and what is free."""
    reason = error.strerror or str(error)
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, None):
        return InputError(f"cannot write {path}: {reason}; make its folder writable, or work in another folder")
    disk = next(parent for parent in path.absolute().parents if parent.is_mount())
    free = shutil.disk_usage(disk).free / 2**20
    return InputError(f"cannot write {path}: {reason}; disk {disk} has {free:.1f} MiB free: make space, the same command goes on")


def remove_leftovers(path: Path) -> None:
    """Removes temporary files of `path` that a process of this machine left when it was killed."""
    for leftover in path.parent.glob(f".{path.name}.{platform.node()}.*.tmp"):
        try:
            os.kill(int(leftover.name.split(".")[-2]), 0)
        except ProcessLookupError:
            leftover.unlink(missing_ok=True)
        except (PermissionError, ValueError):
            continue


def write_text(path: Path | str, text: str) -> None:
    """Writes `text` (UTF-8) to `path` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: Any) -> None:
    """Writes `value` as indented JSON to `path` atomically."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def write_csv(path: Path | str, rows: Iterable[Mapping[str, Any]], columns: list[str]) -> None:
    """Writes rows as CSV with the given columns to `path` atomically; floats keep all their digits."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
