"""`awry replay`: score past traffic with one probe.

Contract: scores are stored under the new probe's name, beside the live ones; nothing else is written: no live offset
(it reads in a consumer group of its own), no alert, no topic, no reply. It ends where the stream ended when it started.
The group keeps its offsets, so that a replay that was stopped continues when started again with the same arguments.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from monitor.errors import SettingsError
from monitor.service import bootstrap
from monitor.service import run as service
from monitor.service.policy import Tally
from monitor.service.registered import PREFIX, fetch_one, names_registry
from monitor.settings import Settings
from monitor.stream.kafka.start_offset import parse_start
from monitor.stream.record import Source
from monitor.stream.wiring import open_source, topics_of
from probes.card import Probe, load_probe
from probes.progress import Progress


def run_replay(settings: Settings, progress: Progress, *, stored: bool = False) -> Tally:
    """Score from `settings.start_from` on with the one probe that `settings.probes` names."""
    (name,) = settings.probes
    if names_registry(name):
        _, path = fetch_one(bootstrap.open_database(settings), settings.state_dir, name.removeprefix(PREFIX))
        settings = settings.model_copy(update={"probes": (str(path),)})
        name = str(path)
    probe = load_probe(name)
    start_from = parse_start(settings.start_from or "")
    if start_from == "latest":
        raise SettingsError("start_from: a replay from latest has nothing to read; give earliest or a time")
    quiet = settings.model_copy(
        update={
            "shadow": (probe.name,),
            "destinations": (),
            "mitigate": "off",
            "verdicts_out": None,
            "dead_letters_out": "none",
            # Messages that failed once may fail again; a replay does not stop for them.
            "dead_letter_limit": 1.0,
        }
    )
    group = group_name(settings, probe)

    def open_stream(of: Settings) -> Source:
        if stored:
            from monitor.stream.stored import StoredSource

            since = start_from if isinstance(start_from, datetime) else datetime(1, 1, 1, tzinfo=UTC)
            return StoredSource(bootstrap.open_database(of), since)
        return open_source(of, group=group, until_end=True)

    if not stored and topics_of(settings):
        progress(f"replaying under the group {group}")
    tally = service.run(quiet, progress, open_stream, check=not stored, live=False)
    if tally.known == tally.messages:
        progress(_nothing_new(tally, probe, stored=stored))
    return tally


def _nothing_new(tally: Tally, probe: Probe, *, stored: bool) -> str:
    """A replay that changed nothing looks like one that did: why it did not."""
    which = f"{probe.name} version {probe.card.version} ({probe.digest})"
    if tally.messages:
        return f"nothing was scored: all {tally.messages} messages have a score by {which} already"
    where = "no text is stored (privacy full stores it)" if stored else "nothing to read, or this replay has read it"
    return f"nothing was scored by {which}: {where} since then"


def group_name(settings: Settings, probe: Probe) -> str:
    """The live group's name with the probe's and the start's: the same arguments give the same group, and another card
    of the same name and version another one."""
    start = re.sub(r"[^A-Za-z0-9]+", "", settings.start_from or "")
    return f"{settings.kafka_group}-replay-{probe.name}-v{probe.card.version}-{probe.digest[:8]}-{start}"
