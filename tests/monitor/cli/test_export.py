"""What `awry export` writes is what the tables hold, and others can read it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from storage import export as exporting
from storage.partitions import utc_today
from storage.writer import BatchRows
from tests.support.alerts.alert_scenes import audit_rows, open_one
from tests.support.cli import Invoke, message_of
from tests.support.rows import message, score, write

ODD = 'a "quoted", näme\nwith lines'


@pytest.fixture
def filled(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """More than one batch."""
    monkeypatch.setattr(exporting, "BATCH", 3)
    text = {"messages": [{"role": "user", "content": "CANARYTEXT"}]}
    rows = [
        message(n, f"s{n}", day=utc_today(), message_id=f"m{n}", tenant=ODD if n == 3 else None, text=text)
        for n in range(8)
    ]
    write(engine, BatchRows(rows, [score(n, n / 8) for n in range(8)]))
    open_one(engine)
    return engine


def read(path: Path, program: str) -> list[dict[str, Any]]:
    kind = path.suffix[1:]
    if program == "duckdb":
        import duckdb

        reader = {"parquet": "read_parquet", "csv": "read_csv", "jsonl": "read_json"}[kind]
        found = duckdb.sql(f"SELECT * FROM {reader}('{path}')")  # noqa: S608 - a path of this test
        return [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()]
    if program == "polars":
        import polars

        table = {"parquet": polars.read_parquet, "csv": polars.read_csv, "jsonl": polars.read_ndjson}[kind](path)
        return list(table.to_dicts())
    import pandas

    if kind == "jsonl":
        return list(pandas.read_json(path, lines=True).to_dict("records"))
    return list((pandas.read_parquet if kind == "parquet" else pandas.read_csv)(path).to_dict("records"))


@pytest.mark.parametrize("program", ["pandas", "polars", "duckdb"])
@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_others_read_it(filled: Engine, run: Invoke, tmp_path: Path, kind: str, program: str) -> None:
    out = tmp_path / f"scores.{kind}"
    done = run("export", "scores", "--out", out)
    assert done.exit_code == 0, done.exception
    assert done.stderr.endswith("8 scores written\n")
    rows = sorted(read(out, program), key=lambda row: row["offset"])
    assert list(rows[0]) == list(exporting.columns("scores"))
    assert [(r["message_id"], r["score"], r["flagged"]) for r in rows] == [(f"m{n}", n / 8, n > 4) for n in range(8)]
    assert rows[3]["tenant"] == ODD
    assert "CANARYTEXT" not in out.read_bytes().decode("latin-1")
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_texts_are_asked_for_and_recorded(filled: Engine, run: Invoke) -> None:
    plain = run("export", "messages", "--out", "-", "--format", "jsonl")
    assert "CANARYTEXT" not in plain.stdout
    assert len(plain.stdout.splitlines()) == 8
    done = run("export", "messages", "--out", "-", "--format", "jsonl", "--text", "--as", "anna", "--since", "7d")
    assert json.loads(done.stdout.splitlines()[0])["text"]["messages"][0]["content"] == "CANARYTEXT"
    last = audit_rows(filled)[-1]
    assert (last.who, last.action, last.after["kind"]) == ("anna", "export.text", "messages")


def test_times_and_alerts(filled: Engine, run: Invoke, tmp_path: Path) -> None:
    out = tmp_path / "a.parquet"
    assert run("export", "alerts", "--out", out).exit_code == 0
    (alert,) = read(out, "polars")
    assert (alert["rule"], json.loads(alert["top_message"])["offset"]) == ("threshold", 1)
    assert run("export", "scores", "--out", out, "--until", "2026-01-01").exit_code == 0
    assert read(out, "polars") == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("scores", "--out", "x"), "format: give one of parquet, csv, jsonl, or end --out with it"),
        (("scores", "--out", "x.csv", "--since", "then"), "since: write a time such as"),
        (("scores", "--out", "x.csv", "--text"), "text: messages have it; export those"),
        (("scores", "--out", "/none/x.csv"), "out: cannot write /none/x.csv (No such file or directory)"),
    ],
)
def test_mistakes(engine: Engine, run: Invoke, arguments: tuple[str, ...], said: str) -> None:
    assert message_of(run("export", *arguments)).startswith(said)
