"""Files that a SIEM's agent reads, byte for byte."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from sqlalchemy import Engine

from alerts.delivery.deliver import deliver_due
from alerts.senders.base import DeliveryError
from alerts.senders.file import FileSender
from tests.support.alerts.alert_rows import flagged, open_alerts
from tests.support.alerts.delivery import configured, full_notification


def test_a_file_has_an_event_a_line(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "awry.json"
    to = {"siem": configured(name="siem", kind="file", path=path, format="ecs")}
    open_alerts(engine, [flagged(n, tenant=f"t{n}\nü") for n in range(3)], ("siem",))
    assert deliver_due(engine, to).sent == 3
    lines = path.read_bytes().splitlines()
    assert [json.loads(line)["organization"]["id"] for line in lines] == [f"t{n}\nü" for n in range(3)]
    # Rotated away: the next one makes a new file.
    path.rename(tmp_path / "awry.json.1")
    open_alerts(engine, [flagged(9, tenant="late")], ("siem",))
    deliver_due(engine, to)
    assert len(path.read_bytes().splitlines()) == 1


def test_a_line_that_was_cut_off_is_ended(tmp_path: Path) -> None:
    path = tmp_path / "awry.json"
    path.write_bytes(b'{"a": 1}\n{"b": ')
    FileSender(path, "awry").send(full_notification())
    lines = path.read_bytes().split(b"\n")
    assert lines[1] == b'{"b": '
    assert json.loads(lines[2]) == full_notification().body


@pytest.mark.parametrize("place", ["none/awry.json", "."])
def test_a_file_that_cannot_be_written_is_tried_again(tmp_path: Path, place: str) -> None:
    with pytest.raises(DeliveryError, match="the file cannot be written") as found:
        FileSender(tmp_path / place, "awry").send(full_notification())
    assert found.value.fault == "destination"


def test_a_full_disk_is_no_delivery() -> None:
    if not os.access("/dev/full", os.W_OK):
        pytest.skip("no /dev/full")
    with pytest.raises(DeliveryError):
        FileSender(Path("/dev/full"), "awry").send(full_notification())


def test_a_new_file_is_for_its_owner_and_group_and_one_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    (tmp_path / "there").chmod(0o644)
    before = os.umask(0)
    try:
        for name in ("new", "there"):
            FileSender(tmp_path / name, "awry").send(full_notification())
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("new", "there")] == [0o640, 0o644]
