"""`awry send` evaluates rules before it delivers."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Engine

from tests.support.alerts.alert_scenes import scored
from tests.support.cli import awry


@pytest.mark.slow
def test_the_sender_evaluates_rules_and_sends_what_they_find(
    engine: Engine, postgres_database: str, tmp_path: Path
) -> None:
    (tmp_path / "r.toml").write_text('[[rate]]\nname = "burst"\nflagged = 3\nwindow = "1h"\n')
    scored(engine, 0, 4)
    sent = [
        awry("send", "--once", "--rules-file", tmp_path / "r.toml", "--database-url", postgres_database) for _ in "ab"
    ]
    assert [x.returncode for x in sent] == [0, 0], sent[0].stderr
    assert "alert.opened burst:drift:shop count=4 score=4.00 threshold=3.00" in sent[0].stdout
    assert sent[1].stdout == ""
