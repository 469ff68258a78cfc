"""One Snakemake for each study: it holds a lock on the study's folder that the system releases however it ends."""

import atexit
import fcntl
import os
import platform
from pathlib import Path

from ddis.errors import InputError
from ddis.files import write_error

OWNER = "work/running/snakemake"


def own(folder: Path) -> None:
    """Makes this process the owner of a study's folder until it ends. Raises InputError if another process is.

    Not every shared disk shows a lock to other hosts, so that the file also says whose it is.
    """
    path, node = folder / OWNER, platform.node()
    try:
        descriptor = _lock(path)
    except BlockingIOError as error:
        raise InputError(_refusal(folder, path.read_text(encoding="utf-8")) + "; wait for it") from error
    except OSError as error:
        raise write_error(path, error) from error
    other = os.read(descriptor, 4096).decode()
    if other and other.split()[0] != node:
        os.close(descriptor)
        raise InputError(_refusal(folder, other) + f"; wait for it. If it has ended or was killed: rm {path}")
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{node} {os.getpid()}\n".encode(), 0)
    atexit.register(_disown, path.absolute(), os.getpid())  # Snakemake leaves its --directory before it ends


def _lock(path: Path) -> int:
    """The file, open and locked. Raises BlockingIOError if another process holds it, OSError if it cannot be written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.stat().st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        except FileNotFoundError:  # the last owner removed it in between
            pass
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _disown(path: Path, pid: int) -> None:
    if os.getpid() == pid:  # a child has no part in it
        path.unlink(missing_ok=True)


def _refusal(folder: Path, owner: str) -> str:
    node, pid = [*owner.split(), "?", "?"][:2]
    return f"Snakemake process {pid} on {node} works on study {folder.name}"
