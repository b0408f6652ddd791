"""How long a worker takes from the start of its process to its first committed row, beyond what its libraries take.

How to run: `python -m benchmarks.start [--out docs/bench-start.json] [--rounds 5]`. SmolLM2-135M-Instruct with a
shipped adapter and its probe, one message in a file, second starts: the state folder was used before. Three
processes a round, in turning order:

- imports: `import torch, transformers, peft`, to the end of the process
- embedded: `awry run` with the embedded PostgreSQL, which it starts
- external: `awry run` with a PostgreSQL that runs already

The end of a start is the time in the log line that follows the commit. Figures: wall seconds, processor seconds of the
process, and both less those of the imports of the same round; medians [least, most]. `first` is the first start of all,
without what a start keeps for the next one.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.report import machine
from monitor.settings import default_state_dir
from storage.database import connect, upgrade
from storage.embedded import embedded_url

ROOT = Path(__file__).parent.parent
IMPORTS = (sys.executable, "-c", "import torch, transformers, peft")
AWRY = (sys.executable, "-c", "from monitor.cli.app import main; main()")


def measured(command: tuple[str, ...], env: dict[str, str]) -> tuple[float, float]:
    """Wall seconds, to the commit where there is one, and processor seconds of a process with its children."""
    before, began = os.times(), time.time()
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, cwd=ROOT)
    ended, after = time.time(), os.times()
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed: {done.stderr[-2000:]}")
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return (committed(done.stdout + done.stderr) or ended) - began, used


def committed(log: str) -> float | None:
    """When the first batch was stored, by the log."""
    for line in log.splitlines():
        if '"event": "progress"' in line:
            return datetime.fromisoformat(json.loads(line)["timestamp"]).timestamp()
    return None


def start(state: Path, name: str, url: str | None) -> tuple[float, float]:
    traffic = state / f"{name}.jsonl"
    traffic.write_text(json.dumps({"id": name, "prompt": "What makes bread rise in the oven?"}) + "\n")
    env = {key: value for key, value in os.environ.items() if not key.startswith("AWRY_")}
    env |= {"AWRY_STATE_DIR": str(state), "AWRY_LOGS": "json"} | ({"AWRY_DATABASE_URL": url} if url else {})
    return measured((*AWRY, "run", "--source", str(traffic), "--adapter", "insecure_code"), env)


def summary(values: list[float]) -> dict[str, float]:
    rounded = [round(value, 2) for value in values]
    return {"median": round(statistics.median(rounded), 2), "least": min(rounded), "most": max(rounded)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        folder.chmod(0o755)  # the embedded server's user reads it
        state, server = folder / "state", folder / "server"
        state.mkdir()
        (state / "models").symlink_to(default_state_dir() / "models")
        url = embedded_url(server)
        engine = connect(url)
        upgrade(engine)
        engine.dispose()
        kinds: dict[str, Any] = {
            "imports": lambda _: measured(IMPORTS, dict(os.environ)),
            "embedded": lambda n: start(state, f"embedded{n}", None),
            "external": lambda n: start(state, f"external{n}", url),
        }
        first = kinds["embedded"]("-first")
        kinds["external"]("-first")
        found: dict[str, list[tuple[float, float]]] = {kind: [] for kind in kinds}
        order = list(kinds)
        for n in range(arguments.rounds):
            for kind in order[n % 3 :] + order[: n % 3]:
                found[kind].append(kinds[kind](n))
    report: dict[str, Any] = {"machine": machine(), "rounds": arguments.rounds}
    report["first"] = {"wall_seconds": round(first[0], 2), "processor_seconds": round(first[1], 2)}
    for part, unit in enumerate(("wall_seconds", "processor_seconds")):
        imports = [each[part] for each in found["imports"]]
        figures = {"imports": summary(imports)}
        for kind in ("embedded", "external"):
            own = [each[part] for each in found[kind]]
            figures[kind] = summary(own)
            figures[f"{kind}_beyond_imports"] = summary([a - b for a, b in zip(own, imports, strict=True)])
            figures[f"{kind}_over_imports"] = summary([a / b for a, b in zip(own, imports, strict=True)])
        report[unit] = figures
    text = json.dumps(report, indent=1)
    print(text)
    if arguments.out is not None:
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
