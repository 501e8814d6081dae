import csv
import io
import os
import pty
import subprocess
import sys
from datetime import UTC, datetime

import msgspec
import pytest

from rqscan.cli import show

AT = datetime(2026, 12, 1, 2, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("SSH-2.0 ünï 漢字 🎉", "SSH-2.0 ünï 漢字 🎉"),
        ("a\x1b[31mb", "a[31mb"),
        ("a\x9b31mb\x00\x7f\x85", "a31mb "),
        ("a\r\n\tb", "a   b"),
        ("a\u202eb\u2066c\u200d\u200b\ufeff", "abc"),
        ("a\ud800b", "ab"),
    ],
)
def test_defuse_takes_what_a_terminal_would_obey(text, safe):
    assert show.defuse(text) == safe


def test_encode_escapes_control_characters_and_loses_nothing():
    value = {"data": {"banner": "\x1b[1m\x9b\u202e\u200b\u2028é"}, "at": AT}
    text = show.encode(value)
    assert text.isprintable()
    assert msgspec.json.decode(text) == value | {"at": "2026-12-01T02:00:00.000000Z"}


@pytest.mark.parametrize("count", [0, 1, 3])
def test_print_json_array_is_one_array(count, capsys):
    show.print_json_array({"n": n} for n in range(count))
    assert msgspec.json.decode(capsys.readouterr().out) == [{"n": n} for n in range(count)]


def test_print_json_array_writes_as_it_goes(capsys):
    def items():
        yield 1
        assert capsys.readouterr().out == "[1"
        yield 2

    show.print_json_array(items())
    assert capsys.readouterr().out == ",\n2]\n"


def test_print_json_lines_is_one_value_a_line(capsys):
    show.print_json_lines([{"a": "x\ny"}, {"a": None}])
    assert capsys.readouterr().out == '{"a":"x\\ny"}\n{"a":null}\n'


def test_print_csv_starts_no_formula(capsys):
    bad = ["=1+1", "+1", "-1", "@x", "\tx", "\rx"]
    good = ["a=1", "", 'say "x", y', "1\n2"]
    rows = [{"a": text, "b": -1, "c": AT, "d": {"=": 1}, "e": None} for text in bad + good]
    show.print_csv("abcde", rows)
    header, *read = csv.reader(io.StringIO(capsys.readouterr().out, newline=""))
    assert header == list("abcde")
    assert [row[0] for row in read] == [f"'{text}" for text in bad] + good
    assert read[0][1:] == ["-1", "2026-12-01T02:00:00.000000Z", '{"=":1}', ""]


def test_print_table_in_a_pipe_is_whole_and_plain(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    show.print_table(["host", "data"], [{"host": "[red]h", "data": "x" * 500 + "\x1b[31m"}])
    header, line = capsys.readouterr().out.splitlines()
    assert header.split() == ["host", "data"]
    assert line.split() == ["[red]h", "x" * 500 + "[31m"]


def test_print_table_on_a_terminal_folds_and_defuses():
    primary, secondary = pty.openpty()
    code = (
        "from rqscan.cli.show import print_table\n"
        "print_table(['a'], [{'a': 'y' * 100 + '\\x1b]0;z'}])"
    )
    environ = os.environ | {
        "PYTHONPATH": os.pathsep.join(sys.path),
        "COLUMNS": "40",
        "TERM": "xterm",
    }
    with subprocess.Popen([sys.executable, "-c", code], stdout=secondary, env=environ) as child:
        assert child.wait(60) == 0
    os.close(secondary)
    shown = os.read(primary, 65536)
    os.close(primary)
    assert shown.count(b"y") == 100
    assert shown.count(b"\n") == 4
    assert b"\x1b]" not in shown
