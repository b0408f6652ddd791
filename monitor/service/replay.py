"""`awry replay`: what would this probe have said of traffic that has gone by?

Contract: scores land in the tables under the new probe's name, beside the live ones; nothing else is touched: no live
offset (it reads under a group of its own), no alert, no topic, no answer. It ends where the stream ended when it
began. The group keeps its place, so that a replay that was stopped goes on when started again with the same words.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime

from monitor.errors import SettingsError
from monitor.service import run as service
from monitor.service.worker import Tally
from monitor.settings import Settings
from monitor.stream.kafka.start_offset import parse_start
from monitor.stream.record import Source
from monitor.stream.wiring import open_source, topics_of
from probes.card import load_probe


def run_replay(settings: Settings, say: Callable[[str], None], *, stored: bool = False) -> Tally:
    """Score from `settings.start_from` on with the one probe that `settings.probes` names."""
    (named,) = settings.probes
    card = load_probe(named).card
    begin = parse_start(settings.start_from or "")
    if begin == "latest":
        raise SettingsError("start_from: a replay from latest has nothing to read; give earliest or a time")
    quiet = settings.model_copy(
        update={
            "shadow": (card.name,),
            "destinations": (),
            "mitigate": "off",
            "verdicts_out": None,
            "dead_letters_out": "none",
            # What failed once may fail again; a replay goes to its end.
            "dead_letter_limit": 1.0,
        }
    )
    group = group_name(settings, card.name, card.version)

    def open_stream(of: Settings) -> Source:
        if stored:
            from monitor.service import bootstrap
            from monitor.stream.stored import StoredSource

            since = begin if isinstance(begin, datetime) else datetime(1, 1, 1, tzinfo=UTC)
            return StoredSource(bootstrap.open_database(of), since)
        return open_source(of, group=group, until_end=True)

    if not stored and topics_of(settings):
        say(f"replaying under the group {group}")
    return service.run(quiet, say, open_stream, check=not stored, live=False)


def group_name(settings: Settings, probe: str, version: int) -> str:
    """The live group's name with the probe's and the time's: the same words find their place again."""
    begin = re.sub(r"[^A-Za-z0-9]+", "", settings.start_from or "")
    return f"{settings.kafka_group}-replay-{probe}-v{version}-{begin}"
