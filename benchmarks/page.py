"""How long the page of `awry serve` takes on many scores: queries and rendering, on the embedded PostgreSQL.

How to run: `python -m benchmarks.page [--rows 10000000] [--out docs/bench-page.json]`; ten million rows take about
twenty minutes and 8 GB of disk on two cores. The traffic is that of `benchmarks.grafana_queries`. A figure is
milliseconds from request to answer, without a network: of the first request, and the median of the next five.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from pathlib import Path
from statistics import median
from typing import Any

from starlette.testclient import TestClient

from alerts.links import Links
from benchmarks.grafana_queries import host, load
from benchmarks.scratch import scratch_database
from monitor.web.auth.options import AccessOptions
from monitor.web.ui.app import make_ui


def measure(browser: TestClient) -> dict[str, dict[str, float]]:
    """By page."""
    alert = re.search(r'href="(/alerts/[0-9a-f-]{36})"', browser.get("/alerts").text)
    assert alert is not None
    message = re.search(r'href="(/messages/[^"]+)"', browser.get("/").text)
    assert message is not None
    paths = {
        "now": "/",
        "alerts": "/alerts",
        "alerts of a tenant": "/alerts?tenant=tenant-7",
        "one alert": alert[1],
        "one message": message[1],
        "probes": "/probes",
        "one probe": "/probes/heads",
    }
    return {name: timed(browser, path) for name, path in paths.items()}


def timed(browser: TestClient, path: str) -> dict[str, float]:
    took = []
    for _ in range(6):
        started = time.perf_counter()
        answer = browser.get(path)
        took.append(1000 * (time.perf_counter() - started))
        assert answer.status_code == 200, path
    return {"first": round(took[0], 1), "ms": round(median(took[1:]), 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--days", type=float, default=2)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with scratch_database() as (engine, _):
        load(engine, arguments.rows, arguments.days)
        browser = TestClient(
            make_ui(engine, Links(), loopback_only=True, options=AccessOptions("loopback")), base_url="http://localhost"
        )
        pages = measure(browser)
    found: dict[str, Any] = {
        "command": f"python -m benchmarks.page --rows {arguments.rows} --days {arguments.days:g}",
        "rows": arguments.rows,
        "machine": host(),
        "pages": pages,
    }
    for name, figures in pages.items():
        print(f"{figures['ms']:9.1f} ms ({figures['first']:.1f} the first time)  {name}")
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
