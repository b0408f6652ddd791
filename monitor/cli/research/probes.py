"""`awry probes`: probes that ship with awry."""

from __future__ import annotations

from monitor.cli import options as o
from monitor.cli.output import print_json
from monitor.cli.tree import Commands

commands = Commands("Probes that ship with awry.")


@commands.command("list")
def list_probes(as_json: o.Json = False) -> None:
    """Shipped probes with their held-out figures and their mitigation. With --json their cards."""
    from monitor.cli.render.probes import print_card, print_mitigation
    from monitor.cli.render.tables import print_line
    from probes.card import load_probe, shipped_probes

    cards = [load_probe(name).card for name in shipped_probes()]
    if as_json:
        print_json([card.model_dump(mode="json") for card in cards])
        return
    for card in cards:
        print_card(card)
        print_mitigation(card)
        print_line()
