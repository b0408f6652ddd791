"""`awry check-server`: whether a running server of vLLM reads what the cards' reference scores say."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from monitor.cli import options as o
from monitor.cli.output import print_json, say
from monitor.cli.tree import Commands

if TYPE_CHECKING:
    from monitor.settings import Settings
    from probes.card import Probe
    from probes.model.load import ChatModel
    from probes.progress import Progress

commands = Commands()
# Of one partition since the first request: those of the server's other clients among them.
_RECORDS = 10_000


@commands.command("check-server")
def check_server(
    server: o.ServerAddress,
    source: o.ReadingsOf,
    probes: o.NamedProbes,
    served: o.Served = None,
    model: o.Model = None,
    chat_template: o.ChatTemplate = None,
    as_json: o.Json = False,
    state_dir: o.StateDir = None,
) -> None:
    """Replay the cards' reference scores through a server of vLLM that runs awry's connector.

    Sends each reference conversation as token ids for one new token and compares the reading with the card's score. The
    model's files are needed here, and are not loaded. OPENAI_API_KEY is sent where it is set. Exit status 1: a score
    differs by more than its card allows, or a probe could not be compared.
    """
    from monitor.cli.render.tables import print_table
    from monitor.service.server_check import CompletionServer, as_rows, compare
    from monitor.settings import load_settings

    settings = load_settings(
        source=source,
        probes=tuple(probes),
        model=model,
        chat_template=chat_template,
        state_dir=state_dir,
    )
    loaded, chat = _opened(settings, say)
    readings = _readings(settings)
    asked = CompletionServer(server)
    try:
        found = compare(asked, loaded, chat, readings, served or asked.served())
    finally:
        asked.close()
    if as_json:
        print_json(as_rows(found))
    else:
        print_table(
            ("probe", "largest difference", "allowed", ""),
            [
                (
                    each.probe,
                    "" if each.worst is None else f"{each.worst:.2g}",
                    f"{each.tolerance:g}",
                    "agrees" if each.agrees else (each.why_not or "differs"),
                )
                for each in found
            ],
        )
    if not all(each.agrees for each in found):
        raise typer.Exit(1)


def _opened(settings: Settings, progress: Progress) -> tuple[list[Probe], ChatModel]:
    from monitor.service.bootstrap import open_tokenizer
    from probes.card import load_probe
    from probes.identity import check_base_identity

    probes = [load_probe(name) for name in settings.probes]
    chat = open_tokenizer(settings, progress)
    for probe in probes:
        check_base_identity(probe.card, chat)
    return probes, chat


def _readings(settings: Settings) -> Callable[[], Iterable[bytes | str]]:
    """What the server publishes from now on."""
    from monitor.errors import SettingsError
    from monitor.stream.wiring import SPOOL, check_source, cluster_of, topics_of

    topics = topics_of(settings)
    if not topics:
        if settings.source in ("-", SPOOL):
            raise SettingsError(
                "source: readings of a server come from kafka:TOPIC or from the file that it appends to"
            )
        check_source(settings)
        return lines_of(Path(settings.source))
    from monitor.stream.kafka.sample import sample

    cluster, since = cluster_of(settings), datetime.now(UTC)

    def read() -> list[bytes]:
        found = sample(cluster, topics, since, _RECORDS, settings.max_message_bytes)
        return [each.payload for each in found if each.payload is not None]

    return read


def lines_of(path: Path) -> Callable[[], list[str]]:
    """The whole lines that a file has got since this call."""
    with path.open("rb") as file:
        begin = file.seek(0, os.SEEK_END)

    def read() -> list[str]:
        with path.open("rb") as file:
            file.seek(begin)
            return file.read().decode("utf-8", "replace").split("\n")[:-1]

    return read
