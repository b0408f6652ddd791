"""A server of vLLM from end to end: awry's own environment, and vLLM's, which PYTEST_VLLM names: `make test-vllm`.

Without it nothing here is collected: the skip that names the command is that of tests/vllm.
"""

from __future__ import annotations

import os
from pathlib import Path

if "PYTEST_VLLM" not in os.environ:
    collect_ignore = [path.name for path in Path(__file__).parent.glob("test_*.py")]
