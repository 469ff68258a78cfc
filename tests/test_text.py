"""Text as people hand it in: encodings, what is no file, and messages that every terminal can show."""

import codecs
import os

import pytest

from ddis.config import Study
from ddis.errors import InputError
from ddis.evaluation.text import read_table
from ddis.files import read_json, read_text, write_text
from ddis.stages import card, figures, generate, report, sample, tables
from ddis.steps import read_record
from ddis.yaml_text import parse_yaml

NOT_TEXT = [
    (b"a: 1\n# Ger\xe4t", r"is not UTF-8: byte 10 \(0xe4\) in line 2; save it as UTF-8"),
    ("a: 1".encode("utf-16-le"), r"is no text file: line 1 holds a NUL character; save it as UTF-8 text"),
    (b"\xff\xfea\0\n", r"is not UTF-16: byte 4 \(0x0a\) in line 1; save it as UTF-8"),
    (b"\x89HDF\r\n\x1a\n", r"is no text file: by its first bytes it is HDF5"),
]


@pytest.mark.parametrize(("content", "message"), NOT_TEXT)
def test_a_file_in_another_encoding_is_refused_by_byte_and_line(tmp_path, content, message):
    (tmp_path / "text").write_bytes(content)
    with pytest.raises(InputError, match=rf"^{tmp_path}/text {message}"):
        read_text(tmp_path / "text")


@pytest.mark.parametrize("content", [codecs.BOM_UTF8 + "ä: 1\r\n".encode(), "ä: 1\n".encode("utf-16"), "ä: 1\r".encode()])
def test_marks_of_an_encoding_and_line_ends_of_other_systems_are_read(tmp_path, content):
    (tmp_path / "text").write_bytes(content)
    assert read_text(tmp_path / "text") == "ä: 1\n"


def test_what_is_no_file_is_refused_with_the_reason_of_the_system(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert read_text(tmp_path / "pipe") == ""  # nobody writes to it; nothing waits
    reasons = {
        tmp_path: "Is a directory",
        tmp_path / "no": "No such file",
        "/dev/zero": "it is a device",
        "a\0b": "embedded null",
    }
    for path, reason in reasons.items():
        with pytest.raises(InputError, match=f"cannot be read: {reason}"):
            read_text(path)


def test_json_that_is_none_is_refused(tmp_path):
    for content in ("{a", "[" * 100_000, ""):
        write_text(tmp_path / "x.json", content)
        with pytest.raises(InputError, match=r"x\.json is not JSON"):
            read_json(tmp_path / "x.json")


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"inputs": "Ger\xe4t"}', b"[]", b"", b"3"])
def test_a_record_that_is_none_counts_as_missing(tmp_path, content):
    (tmp_path / "record.json").write_bytes(content)
    assert read_record(tmp_path / "record.json") is None and read_record(tmp_path / "none.json") is None


def test_a_message_is_one_line_that_every_terminal_can_show():
    name = os.fsdecode(b"Ger\xe4t.yaml")
    assert str(InputError(f"{name}:\n  key 'a\tb\x1b[31m' ä \ud800")) == r"Ger\xe4t.yaml: key 'a\tb\x1b[31m' ä \ud800"


def test_a_name_that_is_no_utf_8_can_be_written(tmp_path):
    write_text(tmp_path / "text", os.fsdecode(b"Ger\xe4t ") + "ä\n")
    assert (tmp_path / "text").read_bytes() == b"Ger\\udce4t \xc3\xa4\n"


def test_names_that_look_like_something_else_come_through_to_the_report(tmp_path, monkeypatch):
    """pandas would read NA and nan as missing, and 007 as 7."""
    monkeypatch.chdir(tmp_path)
    settings = """
        study: 1e3
        device: cpu
        problems: {on: {pde: poisson}}
        data: {resolution: 12, train: 8, validation: 2, test: 3}
        fractions: [1.0]
        observations: {null: {count: 20}}
        runs:
          007: {method: exact, samples: 4}
          NA: {method: tikhonov, operator: solver, samples: 4}
          nan: {method: prior-mean}
    """
    study = Study.load(parse_yaml(settings, "settings"))
    for split in ("train", "validation", "test"):
        generate.run(study, "on", split)
    for case in study.cases():
        sample.run(study, **vars(case))
    for stage in (card.run, tables.run, figures.run, report.run):
        stage(study, "on") if stage is card.run else stage(study)
    names = ["007", "NA", "nan"]
    errors, claims = (read_table(study.folder / "tables" / name) for name in ("errors.csv", "limit.csv"))
    assert list(errors["run"]) == names and list(claims["run"]) == names[1:]
    assert set(errors["problem"]) == {"on"} and set(errors["observation"]) == {"null"} and set(errors["percent"]) == {"100"}
    page = read_text(study.folder / "report.html")
    assert "<td>NA</td>" in page and "<td>007</td>" in page and "<td>nan</td>" in page
