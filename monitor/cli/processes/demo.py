"""`awry demo` and `awry stack`: the whole of awry on traffic of its own."""

from __future__ import annotations

from pathlib import Path

from monitor.cli import options as o
from monitor.cli.tree import Commands

commands = Commands()


@commands.command()
def demo(
    out: o.Out = Path("out"), state_dir: o.StateDir = None, fresh: o.Fresh = False, quick: o.Quick = False
) -> None:
    """Watch a chat model that went wrong in fine-tuning being caught and corrected.

    Prints what was found and its alerts, which go to no destination of yours, and writes a picture and the corrected
    replies. The model's weights are fetched where they are missing, as awry models get does.
    """
    from monitor.demo import run_demo
    from monitor.settings import load_settings

    run_demo(load_settings(state_dir=state_dir), out, fresh=fresh, quick=quick)


@commands.command()
def stack(out: o.Out = Path("out"), state_dir: o.StateDir = None, once: o.Once = False) -> None:
    """The demo through the whole chain: Kafka, worker, sender and web pages as processes, PostgreSQL. Ctrl-C ends it.

    Prints the same table, then addresses of the web pages, Kafka and metrics; logs go to --out. Its data is in
    the folder stack of the state folder.
    """
    from monitor.settings import load_settings
    from monitor.stack import run_stack

    run_stack(load_settings(state_dir=state_dir), out, once=once)
