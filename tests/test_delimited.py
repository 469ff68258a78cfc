"""Observations as people hand them in: what is unambiguous is read, and the rest is refused in one line that names its place."""

import bz2
import gzip
import io
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io

from ddis.data.observations import read_observations
from ddis.errors import InputError
from ddis.grid import Space, square

SPACES = (Space(square(16)),) * 2
TABLE = [[0.5, 0.25, 1.5, 0.1], [0.125, 0.75, -2000.0, 0.25]]
PLAIN = "x,y,value,noise\n0.5,0.25,1.5,0.1\n0.125,0.75,-2e3,.25\n"
GERMAN = "x;y;value;noise\n0,5;0,25;1,5;0,1\n0,125;0,75;-2e3;,25\n"


def read(path: Path, content: str | bytes) -> list[list[float]]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_observations(path, SPACES).table().tolist()


def zipped(**files: str | bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name.replace("__SLASH__", "/").replace("__DOT__", ".")), content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        GERMAN,
        GERMAN.replace(";", "\t"),
        PLAIN.replace(",", ";"),
        PLAIN.replace(",", "\t"),
        PLAIN.replace(",", " , ").replace("\n", " \n"),
        PLAIN.replace("x,y,value,noise", "X,Y,Value,NOISE"),
        PLAIN.replace("x,y,value,noise", '"x","y","value","noise"').replace("0.5", '"0.5"'),
        GERMAN.replace("0,5", '"0,5"'),
        "sep=;\n" + GERMAN,
        '"sep=;"\r\n' + GERMAN.replace("\n", "\r\n"),
        "sep=\t\n" + PLAIN.replace(",", "\t"),
        "# measured in Göttingen; 3 May, 12:00\n\n" + PLAIN.replace("\n0.125", "\n  # the second\n0.125"),
        "# Messger\xe4t".encode("cp1252") + b"\n" + PLAIN.encode(),
        "# x,y,value,noise\n" + PLAIN.partition("\n")[2],
        "\ufeff" + PLAIN,
        "\ufeffsep=;\n" + GERMAN,
        GERMAN.replace(";", "\t").replace("\n", "\r\n").encode("utf-16"),
        PLAIN.encode("utf-16-be").join([b"\xfe\xff", b""]),
        PLAIN.replace("\n", "\r"),
        PLAIN + ",,,\n , ,,\n\n",
        GERMAN.replace("\n", ";;\n") + ";;;;;\n",
        "value,noise,y,x\n1.5,0.1,0.25,0.5\n-2000,0.25,0.75,0.125",
        gzip.compress(PLAIN.encode(), mtime=0),
        bz2.compress(PLAIN.encode()),
        lzma.compress(GERMAN.encode()),
        zipped(
            a__DOT__csv=PLAIN, __MACOSX__SLASH__=b"", __MACOSX__SLASH____DOT___a__DOT__csv=b"\0\5\26\7", __DOT__DS_Store=b"\0"
        ),
        zipped(folder__SLASH__=b"", folder__SLASH__a__DOT__csv=GERMAN),
    ],
)
def test_what_is_unambiguous_is_read(tmp_path, content):
    assert read(tmp_path / "points.csv", content) == TABLE


def encrypted() -> bytes:
    """As a packer with a password writes it: the flag of both headers of the one member is set."""
    content = bytearray(zipped(a__DOT__csv=PLAIN))
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty; accepted: a header such as x,y,value"),
        ("\ufeff\n \n", "it is empty"),
        ("# only\n# comments\n", "it is empty"),
        ("x,y,value\n", "no observation; accepted: 1 to 196"),
        ("x;y;value\n0,5;0,5;1.234,5\n", "line 2: value is 1.234,5; accepted: numbers without separators of thousands"),
        ("x;y;value\n0,5;0,5;1,234,567\n", "line 2: value is 1,234,567; accepted: numbers without separators of thousands"),
        ("x;y;value\n0,5;0,5;1 234,5\n", "line 2: value is 1 234,5; accepted: a finite number"),
        ("x;y;value\n0;1;1,234\n", "line 2: value is 1,234, which may be 1.234 or 1234; accepted: a decimal point"),
        ("x;y;value\n0.5;0;2\n0;0;1,234\n", "line 3: value is 1,234, and line 2: x is 0.5; accepted: one decimal mark"),
        ("x,y,value\n0,5,0,25,1,5\n", "line 2 has 6 cells, and the header 3 names (x, y, value); if these are decimal commas"),
        (
            'x,y,value\n"0,5","0,25","1,5"\n',
            "line 2: x is 0,5; accepted: numbers with a decimal point, or cells separated by semi",
        ),
        (
            "# by hand\nx,y,value\nm,m,K\n0.5,0.5,1\n",
            "line 3 (m, m, K) holds no numbers; a row of units has no place here, remove",
        ),
        ("x [m],y [m],value\n0.5,0.5,1\n", "columns x [m], y [m], value; accepted: x, y, value"),
        ("x,X,y,value\n0.5,0.5,0.5,1\n", "columns x, x, y, value; accepted"),
        (",x,y,value\n0,0.5,0.5,1\n", "columns , x, y, value; accepted"),
        ("0.5,0.5,1\n", "line 1 is no header but numbers"),
        ("# x y value\n0.5 0.5 1\n", "line 2 is no header but numbers"),
        ("x y value\n0.5 0.5 1\n", "line 1 (x y value) is no header; accepted: names separated by comma, semicolon or tab"),
        ("sep=|\nx|y|value\n", "line 1: sep=|; accepted: comma, semicolon or tab"),
        ("x,y,value\n\n0.5,0.5,1\n0.5,0.2,1_000\n", "line 4: value is 1_000; accepted: a finite number"),
        ("x,y,value\n0.5,0.5,1e999\n", "line 2: value is 1e999; accepted: a finite number"),
        ("x,y,value\n0.5,0.5\n", "line 2 has 2 cells, and the header 3 names (x, y, value)"),
        ('x,y,value\n"0.5,0.5,1\n', "line 2 has 1 cells"),
        (f"x,y,value\n0.5,0.5,{'a' * 200_000}\n", "line 2: field larger than field limit"),
        ("x,y,value\n0.5,0.5,1\n0.5,0.5\0,1\n", "line 3 holds NUL bytes; accepted: text in UTF-8"),
        (PLAIN.encode("utf-16-le"), "line 1 holds NUL bytes"),
        ("<!DOCTYPE html>\n<table>", "it is HTML or XML, not text; accepted: a CSV file, as spreadsheets save it"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "it is an old Excel or Office file, not text"),
        (b"%PDF-1.7\n", "it is PDF, not text"),
        (
            zipped(**{"[Content_Types].xml": "<", "xl__SLASH__workbook.xml": "<"}),
            "it is an Excel workbook; save its sheet as CSV",
        ),
        (zipped(mimetype="x", **{"content.xml": "<"}), "it is an OpenDocument spreadsheet; save its sheet as CSV"),
        (zipped(a=PLAIN, b=PLAIN), "it is a zip of 2 files (a, b); accepted: one"),
        (zipped(), "it is a zip of 0 files (none); accepted: one"),
        (zipped(a=PLAIN)[:60], "it cannot be read as zip: File is not a zip file"),
        (encrypted(), "a.csv in it is encrypted; unpack it first"),
        (gzip.compress(PLAIN.encode(), mtime=0)[:30], "it cannot be read as gzip: Compressed file ended"),
        (bz2.compress(PLAIN.encode())[:30], "it cannot be read as bzip2: Compressed file ended"),
        (lzma.compress(PLAIN.encode())[:30], "it cannot be read as xz: Compressed file ended"),
        (gzip.compress(bytes((1 << 26) + 9), mtime=0), "more than 64 MiB"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(tmp_path, content, message):
    with pytest.raises(InputError) as caught:
        read(tmp_path / "points.csv", content)
    text = str(caught.value)
    assert text.startswith(f"{tmp_path}/points.csv: {message}") and "\n" not in text and len(text) < len(str(tmp_path)) + 250


ARRAY = np.array(TABLE)
SAVE: dict[str, tuple[Callable[[Path], object], str]] = {
    "npz": (lambda path: np.savez(path.open("wb"), x=ARRAY), "it is a NumPy archive (.npz), not text"),
    "npy": (lambda path: np.save(path.open("wb"), ARRAY), "it is .npy, not text"),
    "pickle": (lambda path: np.save(path.open("wb"), np.array([{}]), allow_pickle=True), "it is .npy, not text"),
    "v5": (lambda path: scipy.io.savemat(path, {"x": ARRAY}, appendmat=False), "it is MATLAB file of version 5, not text"),
    "v4": (lambda path: scipy.io.savemat(path, {"x": ARRAY}, appendmat=False, format="4"), "line 1 holds NUL bytes"),
    "hdf5": (lambda path: h5py.File(path, "w").close(), "it is HDF5, not text"),
    "folder": (lambda path: path.mkdir(), "cannot be read: Is a directory"),
}


@pytest.mark.parametrize("kind", list(SAVE))
def test_files_of_other_kinds_are_named(tmp_path, kind):
    save, message = SAVE[kind]
    save(tmp_path / "points.csv")
    with pytest.raises(InputError, match=r"points\.csv:? ") as caught:
        read_observations(tmp_path / "points.csv", SPACES)
    assert message in str(caught.value)


def test_names_in_a_data_frame_may_be_in_capitals():
    found = read_observations({"X": [0.5], " Y ": [0.25], "Value": [1.5]}, SPACES)
    assert found.table().tolist() == [[0.5, 0.25, 1.5, 0.0]]
