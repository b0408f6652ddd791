"""Takes docs/page.png: the first page of `awry serve` on the data that `make demo` left, in a real Chromium.

How to run, after `make demo`: `python scripts/shoot_page.py [--state-dir FOLDER]`; needs Debian's chromium.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

from alerts.links import Links
from monitor.service import bootstrap
from monitor.settings import default_state_dir, load_settings
from monitor.web.auth.options import AccessOptions
from monitor.web.server import serving
from storage.rollup import roll_up


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--state-dir", type=Path, default=default_state_dir() / "demo")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs" / "page.png")
    arguments = parser.parse_args()
    program = shutil.which("chromium") or sys.exit("needs chromium: apt-get install chromium")
    engine = bootstrap.open_database(load_settings(state_dir=arguments.state_dir))
    roll_up(engine)
    here = AccessOptions("loopback")
    with serving("127.0.0.1:0", engine, Links(), lambda: None, here) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 800}, color_scheme="light")
        page.goto(f"http://{address}/")
        page.screenshot(path=arguments.out, full_page=True)
        browser.close()
    engine.dispose()


if __name__ == "__main__":
    main()
