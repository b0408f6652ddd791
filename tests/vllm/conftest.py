"""Tests that run vLLM in their own process: in its environment, by `make test-vllm`.

In awry's own environment nothing here is collected but `test_environment.py`, whose one skip names the command.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

if importlib.util.find_spec("vllm") is None:
    collect_ignore = [path.name for path in Path(__file__).parent.glob("test_*.py") if path.stem != "test_environment"]
