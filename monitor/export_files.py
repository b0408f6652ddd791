"""Writes rows as Parquet, CSV or JSON lines.

Contract: `write(batches, columns, format, out)` writes into a binary file, batch by batch, and returns the number of
rows. Times are in UTC; JSON within a column is text. In CSV the first line has the names, and NULL is an empty field,
"" an empty text.
`into(path)` gives a file that appears under its name only when the block ends without an error; `-` is standard output.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal

from awry.whole_file import whole_file
from monitor.errors import OutputError

Format = Literal["parquet", "csv", "jsonl"]
FORMATS: tuple[Format, ...] = ("parquet", "csv", "jsonl")

Rows = list[dict[str, Any]]


def write(batches: Iterable[Rows], columns: Mapping[str, str], format: Format, out: BinaryIO) -> int:
    """All rows; without any, a file with the columns alone (an empty one of JSON lines)."""
    return {"parquet": _parquet, "csv": _csv, "jsonl": _jsonl}[format](batches, columns, out)


def format_of(out: str) -> Format | None:
    """By the end of the file's name."""
    return next((each for each in FORMATS if out.endswith(f".{each}")), None)


@contextmanager
def into(path: str) -> Iterator[BinaryIO]:
    """Raises OutputError where the file cannot be written."""
    if path == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    target = Path(path)
    try:
        with whole_file(target) as file:
            yield file
    except OSError as error:
        raise OutputError(f"out: cannot write {target} ({error.strerror})") from None


def _tables(batches: Iterable[Rows], columns: Mapping[str, str]) -> Iterator[Any]:
    import pyarrow as pa

    types = {
        "text": pa.string(),
        "json": pa.string(),
        "integer": pa.int64(),
        "number": pa.float64(),
        "boolean": pa.bool_(),
        "time": pa.timestamp("us", tz="UTC"),
        "day": pa.date32(),
    }
    schema = pa.schema([(name, types[kind]) for name, kind in columns.items()])
    yield schema
    for batch in batches:
        yield pa.RecordBatch.from_pylist([_plain(row, columns) for row in batch], schema=schema)


def _parquet(batches: Iterable[Rows], columns: Mapping[str, str], out: BinaryIO) -> int:
    import pyarrow.parquet as pq

    tables = _tables(batches, columns)
    number = 0
    with pq.ParquetWriter(out, next(tables), compression="zstd") as writer:
        for batch in tables:
            writer.write_batch(batch)
            number += batch.num_rows
    return number


def _csv(batches: Iterable[Rows], columns: Mapping[str, str], out: BinaryIO) -> int:
    import pyarrow.csv as arrow_csv

    tables = _tables(batches, columns)
    number = 0
    with arrow_csv.CSVWriter(out, next(tables)) as writer:
        for batch in tables:
            writer.write_batch(batch)
            number += batch.num_rows
    return number


def _jsonl(batches: Iterable[Rows], columns: Mapping[str, str], out: BinaryIO) -> int:
    number = 0
    for batch in batches:
        for row in batch:
            out.write(json.dumps({name: row[name] for name in columns}, default=_written, ensure_ascii=False).encode())
            out.write(b"\n")
        number += len(batch)
    return number


def _plain(row: dict[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    plain = dict(row)
    for name, kind in columns.items():
        if plain[name] is not None and kind == "json":
            plain[name] = json.dumps(plain[name], ensure_ascii=False)
        elif plain[name] is not None and kind == "text":
            plain[name] = str(plain[name])
    return plain


def _written(value: Any) -> str:
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
