"""What tables look like: whole words when piped, a line a cell on a narrow terminal, data as it is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import Engine

from monitor.cli.render.tables import print_table, utc
from monitor.console import make_console
from tests.support.alerts.alert_rows import flagged, open_alerts
from tests.support.cli import Invoke, output_of


def test_columns_are_aligned_and_lines_end_with_a_letter(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("name", "n"), [("a long name", 1), ("猫", 22)], title="title", note="note")
    assert capsys.readouterr().out == "title\nname         n\na long name  1\n猫           22\nnote\n"


def test_piped_a_word_is_never_broken(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    key = "threshold:" + "x" * 500
    print_table(("id", "alert", "why"), [("1", key, "some words that stay on one line")])
    assert capsys.readouterr().out.splitlines()[1] == f"1   {key}  some words that stay on one line"


@pytest.mark.parametrize("name", [":gem:fire:", "[bold]x[/bold]", "[/]", "{x}", "\\[x]"])
def test_a_name_is_printed_as_it_is(capsys: pytest.CaptureFixture[str], name: str) -> None:
    print_table(("alert", "n"), [(name, 1)], title=name)
    title, _, row = capsys.readouterr().out.splitlines()
    assert (title, row.removesuffix("1").strip()) == (name, name)


def test_nothing_in_a_name_steers_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("a",), [("x\x1b[2J\ny",)], title="\x07")
    assert capsys.readouterr().out == "\\x07\na\nx\\x1b[2J\\ny\n"


def test_a_narrow_terminal_gets_a_line_a_cell(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "30")
    rows = [("1", "", "a-name-that-does-not-fit-in-it"), ("2", "open", "b")]
    print_table(("id", "state", "alert"), rows)
    plain = capsys.readouterr().out.replace("\x1b[1m", "").replace("\x1b[0m", "")
    assert plain == "id     1\nalert  a-name-that-does-not-fit-in-it\n\nid     2\nstate  open\nalert  b\n\n"
    monkeypatch.setenv("COLUMNS", "80")
    print_table(("id", "state", "alert"), rows)
    assert capsys.readouterr().out.splitlines()[2] == "2   open   b"


@pytest.mark.parametrize(("term", "styled"), [("xterm", True), ("dumb", False)])
def test_a_dumb_terminal_gets_no_escape_codes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], term: str, styled: bool
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", term)
    for columns in ("80", "10"):
        monkeypatch.setenv("COLUMNS", columns)
        print_table(("id", "state", "alert"), [("1", "open", "a")], title="title")
        assert ("\x1b[" in capsys.readouterr().out) is styled


def test_a_table_without_rows_still_says_what_it_is_about(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "10")
    monkeypatch.setenv("TERM", "dumb")
    print_table(("id", "state", "alert"), [])
    assert capsys.readouterr().out == "id  state  alert\n"


def test_the_list_of_alerts_prints_names_as_they_are(engine: Engine, run: Invoke) -> None:
    open_alerts(engine, [flagged(1, tenant="fire"), flagged(2, tenant="[bold]bank[/bold]"), flagged(3, probe="gem")])
    listed = output_of(run("alerts"))
    for key in ("threshold:drift:fire:smol", "threshold:drift:[bold]bank[/bold]:smol", "threshold:gem:shop:smol"):
        assert f" {key} " in listed
    assert output_of(run("outbox", "list")).startswith("notification  destination")


def test_a_console_of_the_processes_prints_data_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    make_console().print("threshold:gem:fire:m [bold]x")
    make_console(stderr=True).print("[red]y")
    make_console(markup=True).print("[bold]threshold[/]:gem:fire:m")
    done = capsys.readouterr()
    assert done.out == "threshold:gem:fire:m [bold]x\nthreshold:gem:fire:m\n"
    assert done.err == "[red]y\n"


def test_times_are_in_utc() -> None:
    at = datetime(2026, 1, 31, 1, 30, tzinfo=timezone(timedelta(hours=2)))
    assert utc(at) == "2026-01-30 23:30:00Z"
    assert utc(at.astimezone(UTC)) == utc(at)
    assert utc(None) == ""
