"""Text as people hand it in: encodings, what is no file, and messages that every terminal can show."""

import codecs
import os

import pytest

from ddis.config import Study
from ddis.errors import InputError
from ddis.evaluation.table import from_csv
from ddis.evaluation.text import NAMES, read_table
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


def test_cells_of_a_table_are_names_or_numbers_or_missing(tmp_path):
    (tmp_path / "t.csv").write_text('run,percent,step,loss\nnan,12.5,3,\n"a,b",100,4,1e-3\n007,1,5,nan\n\n')
    steps = [
        {"run": "nan", "percent": "12.5", "step": 3, "loss": None},
        {"run": "a,b", "percent": "100", "step": 4, "loss": 0.001},
    ]
    assert read_table(tmp_path / "t.csv") == [*steps, {"run": "007", "percent": "1", "step": 5, "loss": None}]
    assert read_table(tmp_path / "t.csv", {"run": str, "percent": float})[0]["percent"] == 12.5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "it is empty"),
        ("run,loss\na\n", "not of one length"),
        ("run,loss\na,b\n", "'b'"),
        ("loss\n1\n", "lacks the columns run"),
    ],
)
def test_a_table_that_is_none_is_refused(tmp_path, content, message):
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(InputError, match=rf"t\.csv cannot be read as a table: .*{message}"):
        read_table(tmp_path / "t.csv", {"run": str} if "lacks" in message else NAMES)


def test_names_that_look_like_something_else_come_through_to_the_report(tmp_path, monkeypatch):
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
    errors, ratios = from_csv(study.folder / "tables" / "errors.csv"), read_table(study.folder / "tables" / "limit.csv")
    assert [row["run"] for row in errors] == names and [row["run"] for row in ratios] == names[1:]
    assert {(row["problem"], row["observation"], row["percent"]) for row in errors} == {("on", "null", 100)}
    page = read_text(study.folder / "report.html")
    assert "<td>NA</td>" in page and "<td>007</td>" in page and "<td>nan</td>" in page
