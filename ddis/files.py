"""Text files are read with one clear error, and files written so that a half-written one never stands under its final name."""

import codecs
import errno
import glob
import json
import os
import platform
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ddis.errors import DamagedError, InputError
from ddis.reading import cannot_read, file_kind
from ddis.text import csv_text

_ADVICE = {
    errno.ENAMETOOLONG: "choose a shorter one",
    **dict.fromkeys((errno.EEXIST, errno.ENOTDIR), "a part of its path is a file, not a folder: choose another"),
}
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_text(path: Path | str) -> str:
    """The text of a file in UTF-8, or in UTF-16 that begins with its mark; line ends as "\\n", without a mark at the beginning.

    Raises InputError, which names the file and why it cannot be read; of one in another encoding the byte and its line.
    """
    content = read_bytes(path)
    if kind := file_kind(content):
        raise DamagedError(f"{path} is no text file: by its first bytes it is {kind}")
    encoding = "utf-16" if content.startswith(_UTF_16) else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise DamagedError(f"{path} {_not_text(error)}; save it as UTF-8") from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DamagedError(f"{path} is no text file: line {line} holds a NUL character; save it as UTF-8 text")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_bytes(path: Path | str) -> bytes:
    """The content of a file, or of a pipe. Raises InputError, which names the file and the reason that the system gives."""
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            kind = os.fstat(file.fileno()).st_mode
            if stat.S_ISREG(kind) or stat.S_ISFIFO(kind):
                os.set_blocking(file.fileno(), True)
                return file.read()
    except OSError as error:
        raise cannot_read(Path(path), error) from error
    except ValueError as error:  # a NUL character in the name
        raise InputError(f"{str(path)!r} cannot be read: {error}") from error
    raise InputError(f"{path} cannot be read: it is a device; accepted: a file")


def _open_at_once(path: str, flags: int) -> int:
    """Opens a pipe that nobody writes to as well, where open() would wait for one who does."""
    return os.open(path, flags | os.O_NONBLOCK)


def read_json(path: Path | str) -> Any:
    """What a JSON file holds. Raises InputError."""
    try:
        return json.loads(read_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise DamagedError(f"{path} is not JSON: {error}") from error


def _not_text(error: UnicodeDecodeError) -> str:
    """Where a file is not in the encoding that it was taken for."""
    before = error.object[: error.start]
    line, byte = before.count(b"\n") + 1, error.object[error.start]
    kind = "UTF-16" if error.encoding.startswith("utf-16") else "UTF-8"
    return f"is not {kind}: byte {error.start} (0x{byte:02x}) in line {line}"


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
        advice = _ADVICE.get(error.errno, "make its folder writable, or work in another folder")
        return InputError(f"cannot write {path}: {reason}; {advice}")
    disk = next(parent for parent in path.absolute().parents if parent.is_mount())
    free = shutil.disk_usage(disk).free / 2**20
    return InputError(f"cannot write {path}: {reason}; disk {disk} has {free:.1f} MiB free: make space, the same command goes on")


def remove_leftovers(path: Path) -> None:
    """Removes temporary files of `path` that a process of this machine left when it was killed."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.{platform.node()}.*.tmp"):
        try:
            os.kill(int(leftover.name.split(".")[-2]), 0)
        except ProcessLookupError:
            leftover.unlink(missing_ok=True)
        except (PermissionError, ValueError):
            continue


def write_text(path: Path | str, text: str) -> None:
    """Writes `text` (UTF-8; bytes of a file name that are none as `\\udce9`) to `path` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")


def write_together(contents: Mapping[Path, bytes | str]) -> None:
    """Writes files that belong together (text as UTF-8): none has its name before all are written, and on an error none is."""
    with ExitStack() as stack:
        for path, content in contents.items():
            stack.enter_context(atomic_path(path)).write_bytes(content.encode() if isinstance(content, str) else content)


def write_json(path: Path | str, value: Any) -> None:
    """Writes `value` as indented JSON to `path` atomically."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def write_csv(path: Path | str, rows: Iterable[Mapping[str, Any]], columns: list[str]) -> None:
    """Writes rows as CSV with the given columns to `path` atomically; floats keep all their digits."""
    write_text(path, csv_text(rows, columns))
