"""Why a file cannot be read: what the system says of it, or the damage that its bytes prove. Nothing else is called damage."""

import errno
import json
import mmap
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Literal

from ddis.errors import DamagedError, InputError

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
REPAIR = "restore it or make it again (for a file of a study `ddis verify` says how)"
_MATRIX = 14  # type of an element of a MATLAB file
_PARTS = {*range(1, 8), 9, 12, 13, 14, 16, 17, 18}
_NUMBERS = range(6, 16)  # classes of arrays
_LARGEST_HEADER = 100_000_000  # of a safetensors file
_MORE = {
    errno.EAGAIN: "another program has it open; close it there, or wait until it is done",
    errno.EMFILE: "close other files, or raise `ulimit -n`",
    errno.ENFILE: "close other programs",
    errno.EIO: "its disk does not give its content; look after the disk, the file may be good",
    errno.ESTALE: "the network disk has lost it for now; run the same command again",
    errno.ENOLCK: "the disk knows no locks; set HDF5_USE_FILE_LOCKING=FALSE if no other program writes to it",
}


def cannot_read(path: Path, error: Exception, damage: Callable[[Path], str | None] | None = None) -> InputError:
    """The error to raise for one that came up in reading `path`; `damage` looks for proof in its bytes."""
    said = system_reason(error)
    if said is None and damage is not None:
        try:
            found = damage(path)
        except OSError as again:
            said = system_reason(again)
        else:
            if found:
                return DamagedError(f"{path} {found}; {REPAIR}")
    return InputError(f"{path} cannot be read: {said or ' '.join(str(error).split()) or type(error).__name__}")


def system_reason(error: Exception) -> str | None:
    """What the operating system said; None for an error that a parser found. HDF5 hides the number in its text."""
    number = getattr(error, "errno", None)
    if number is None and (told := re.search(r"errno = (\d+), error message", str(error))):
        number = int(told[1])
    if number is None:
        return None
    more = _MORE.get(number)
    return os.strerror(number) + (f" ({more})" if more else "")


def hdf5_damage(path: Path) -> str | None:
    """What is wrong with an HDF5 file by its superblock; None if that does not contradict its size. Raises OSError.

    Superblock: section II.A of the HDF5 File Format Specification, version 3.0.
    """
    size = path.stat().st_size
    if size == 0:
        return "is empty"
    with path.open("rb") as file:
        if not _seek_signature(file, size):
            return "is not an HDF5 file: the signature at its beginning is missing"
        head = file.read(128)
    # Version, and the place of: number of bytes of an address, address of the end of the file.
    offset_size, before = (5, 16) if head[:1] == b"\0" else (5, 20) if head[:1] == b"\1" else (1, 4)
    width = int.from_bytes(head[offset_size : offset_size + 1], "little")
    end = head[before + 2 * width : before + 3 * width]
    if not end or len(end) < width:
        return f"is truncated: its {size} bytes end in its HDF5 header"
    stored = int.from_bytes(end, "little")
    return f"is truncated: it has {size} bytes, and {stored} by its HDF5 header" if stored > size else None


def is_hdf5(path: Path) -> bool:
    """Whether a file has the signature of HDF5, whoever has it open. Raises OSError."""
    with path.open("rb") as file:
        return _seek_signature(file, path.stat().st_size)


def _seek_signature(file: BinaryIO, size: int) -> bool:
    """Moves behind the signature, which is at 0 or, after a block of the user's, at 512, 1024, 2048 ... bytes."""
    start = 0
    while start < size:
        file.seek(start)
        if file.read(len(HDF5_SIGNATURE)) == HDF5_SIGNATURE:
            return True
        start = max(512, 2 * start)
    return False


def safetensors_damage(path: Path) -> str | None:
    """What is wrong with a safetensors file by its header; None if that does not contradict its size. Raises OSError."""
    size = path.stat().st_size
    if size == 0:
        return "is empty"
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= _LARGEST_HEADER:
            return "is not a safetensors file: its first bytes are no length of a header"
        header = file.read(length)
    if len(header) < length:
        return f"is truncated, or not a safetensors file: it has {size} bytes, and a header of {length} by the first of them"
    try:
        ends = [entry["data_offsets"][1] for name, entry in json.loads(header).items() if name != "__metadata__"]
        whole = 8 + length + max([0, *map(int, ends)])
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        return "is damaged: its safetensors header cannot be understood"
    return None if size == whole else f"is truncated: it has {size} bytes, and {whole} by its safetensors header"


def matlab_damage(path: Path) -> str | None:
    """What is wrong with the elements of a MATLAB file of version 5; None if they fit into each other. Raises OSError.

    Arrays are stored with a tag before each part; compressed ones have a checksum. Format: "MAT-File Format", level 5.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return _matlab_damage(content)


def _matlab_damage(content: mmap.mmap) -> str | None:
    order: Literal["little", "big"] = "big" if content[126:128] == b"MI" else "little"
    start = 128
    while start < len(content):
        kind, begin, end = _element(content, start, order)
        if end > len(content):
            return f"is truncated: it has {len(content)} bytes, and an array in it ends at {end}"
        if kind == _MATRIX and not _is_matrix(content, begin, end, order):
            return f"is damaged: what is at byte {start} is not a whole array"
        start = end
    return None


def _is_matrix(content: mmap.mmap, place: int, end: int, order: Literal["little", "big"]) -> bool:
    """Whether the parts of an array end where it ends. Of numbers: flags, shape, name, values, and imaginary ones if flagged."""
    flags = int.from_bytes(content[place + 8 : place + 12], order)
    parts = 0
    while place < end:
        kind, first, last = _element(content, place, order)
        if kind not in _PARTS or last > end:
            return False
        parts += 1
        place += 8 if first == place + 4 else 8 + -(-(last - first) // 8) * 8
    numbers = flags & 0xFF in _NUMBERS
    return not numbers or parts == 4 + (flags >> 11 & 1)


def _element(content: mmap.mmap, start: int, order: Literal["little", "big"]) -> tuple[int, int, int]:
    """(type, first byte of the data, the one after it) of the element whose tag begins at `start`."""
    kind = int.from_bytes(content[start : start + 4], order)
    if kind >> 16:  # up to four bytes, which stand in the tag
        return kind & 0xFFFF, start + 4, start + 4 + (kind >> 16)
    return kind, start + 8, start + 8 + int.from_bytes(content[start + 4 : start + 8], order)


# First bytes of files that are no text.
_SIGNS = {
    HDF5_SIGNATURE: "HDF5",
    b"MATLAB 5.0 MAT-file": "MATLAB file of version 5",
    b"MATLAB 7.3 MAT-file": "MATLAB file of version 7.3",
    b"\x93NUMPY": ".npy",
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!": "RAR",
    b"\xd0\xcf\x11\xe0": "an old Excel or Office file",
    b"%PDF": "PDF",
    b"\x89PNG": "PNG",
}


def file_kind(content: bytes) -> str | None:
    """What a file is by its first bytes; None if they are of no kind that is known here, as those of text."""
    return next((kind for sign, kind in _SIGNS.items() if content.startswith(sign)), None)
