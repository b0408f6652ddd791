"""docs/python.md: its code runs as it stands, from top to bottom, and does what the text says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import ROOT

PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")


@pytest.mark.model
def test_the_page_runs(
    state: Path, postgres_database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWRY_STATE_DIR", str(state))
    monkeypatch.setenv("AWRY_DATABASE_URL", postgres_database)
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 6
    names: dict[str, Any] = {}
    for number, block in enumerate(blocks):
        exec(compile(block, f"docs/python.md, block {number}", "exec"), names)  # noqa: S102 - the page's own
    assert names["scores"].shape == (2,)
    assert names["flagged"].dtype == np.bool_
    assert names["plain"] != names["steered"]
    assert names["state"].relative_change > 0
    assert names["result"].auroc.value > 0.5
    assert np.array_equal(names["mine"].directions[0].vector, names["again"].directions[0].vector)
    assert names["rows"] == []
    assert "mean size of the change" in capsys.readouterr().out
