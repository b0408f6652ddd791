"""All checks in order: the settings first, then what they lead to.

Contract: `examine` yields findings as they are made. A check about a setting that is wrong is left out, since it would
look at a default. A check that breaks is a fault by its error's class, and ends no other check.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from awry.errors import AwryError
from monitor.config.check import Checked, check
from monitor.config.named import LISTENS
from monitor.doctor.database import database
from monitor.doctor.finding import Check, Finding, fault, ok
from monitor.doctor.kafka import kafka
from monitor.doctor.machine import destinations, disk, ports
from monitor.doctor.model import model
from monitor.doctor.replica import replica
from monitor.setting_sources import Fault

# With the settings that each is about, by the beginnings of their names.
CHECKS: tuple[tuple[str, Check, tuple[str, ...]], ...] = (
    ("state folder", disk, ("state_dir",)),
    ("database", database, ("database_url", "state_dir")),
    ("replica", replica, ("read_database_url", "database_url")),
    ("kafka", kafka, ("kafka_", "source", "start_from")),
    ("ports", ports, LISTENS),
    ("destinations", destinations, ("destinations", "judge_url")),
)
MODEL: tuple[str, Check, tuple[str, ...]] = (
    "model",
    model,
    ("state_dir", "model", "adapter", "scale", "trust_", "probes", "shadow", "device", "dtype", "attention"),
)


def examine(flags: dict[str, Any], *, with_model: bool = True) -> Iterator[Finding]:
    """The findings, with `flags` on top of the settings."""
    checked = check(flags=flags)
    yield from _settings(checked)
    for part, look, about in (*CHECKS, *((MODEL,) if with_model else ())):
        if any(name.startswith(about) for name in checked.wrong):
            continue
        try:
            yield from look(checked.settings)
        except AwryError as error:
            yield fault(part, str(error), "mend what it names")
        except Exception as error:  # by class: its text may quote anything
            yield fault(part, f"the check itself failed ({type(error).__name__})", "report it, with awry --version")


def _settings(checked: Checked) -> Iterator[Finding]:
    for each in checked.faults:
        yield _of(each)
    if not checked.faults:
        file = checked.given.file
        yield ok("settings", f"{file} and the environment have no fault" if file else "the environment has no fault")


def _of(each: Fault) -> Finding:
    return fault("settings", str(each), each.fix)
