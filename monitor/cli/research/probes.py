"""`awry probes`: probes that ship with awry, and the registry of those that workers load."""

from __future__ import annotations

from monitor.cli import options as o
from monitor.cli.inputs import actor_of, reading, writing
from monitor.cli.output import print_json, say
from monitor.cli.tree import Commands

commands = Commands("Probes that ship with awry, and the registry of those that workers load.")


@commands.command("list")
def list_probes(
    of_registry: o.OfRegistry = False,
    as_json: o.Json = False,
    database_url: o.DatabaseUrl = None,
    state_dir: o.StateDir = None,
) -> None:
    """Shipped probes with their held-out figures and their mitigation, or what is registered. --json: their cards."""
    from monitor.cli.render.probes import print_card, print_mitigation
    from monitor.cli.render.registry import entry_json, print_entries
    from monitor.cli.render.tables import print_line
    from probes.card import load_probe, shipped_probes
    from storage import probe_registry

    if of_registry:
        with reading(database_url, state_dir) as connection:
            entries = probe_registry.entries(connection)
        if as_json:
            print_json([entry_json(entry) for entry in entries])
        else:
            print_entries(entries)
        return
    cards = [load_probe(name).card for name in shipped_probes()]
    if as_json:
        print_json([card.model_dump(mode="json") for card in cards])
        return
    for card in cards:
        print_card(card)
        print_mitigation(card)
        print_line()


@commands.command()
def add(
    card: o.ProbeFile,
    as_version: o.AsVersion = None,
    actor: o.Actor = None,
    database_url: o.DatabaseUrl = None,
    state_dir: o.StateDir = None,
) -> None:
    """Put a probe's files into the registry, from where workers load it as registry:NAME. Nothing is written over."""
    from monitor.service.registration import register_files

    with writing(database_url, state_dir) as connection:
        entry, new = register_files(connection, card, actor_of(actor), as_version)
    say(f"{entry} is registered" if new else f"{entry} was registered before, as {entry.stage}")


@commands.command()
def show(
    probe: o.RegisteredProbe,
    out: o.OptionalOut = None,
    as_json: o.Json = False,
    database_url: o.DatabaseUrl = None,
    state_dir: o.StateDir = None,
) -> None:
    """A registered probe's stage and card; with --out its files are written to a folder."""
    from monitor.cli.render.probes import print_calibration, print_card, print_mitigation
    from monitor.cli.render.registry import entry_json, print_entries
    from monitor.service.registered import write
    from monitor.service.registration import card_of
    from storage import probe_registry

    with reading(database_url, state_dir) as connection:
        entry = probe_registry.find(connection, probe)
        files = probe_registry.files(connection, entry.digest)
    card = card_of(*files)
    if out is not None:
        write(out / f"{entry.name}.safetensors", files[1])
        write(out / f"{entry.name}.json", files[0])
        say(f"{entry} is written to {out}")
    if as_json:
        print_json(entry_json(entry) | {"card": card.model_dump(mode="json")})
        return
    print_entries([entry])
    if card.evaluation:
        print_card(card)
    else:  # made from Python, without figures
        print_calibration(card)
    print_mitigation(card)


@commands.command()
def diff(
    probe: o.RegisteredProbe,
    other: o.OtherProbe,
    as_json: o.Json = False,
    database_url: o.DatabaseUrl = None,
    state_dir: o.StateDir = None,
) -> None:
    """What differs between two probes: where and how they read, thresholds, held-out figures, their directions."""
    from monitor.cli.render.registry import print_differences
    from monitor.service.registration import differences, probe_of

    with reading(database_url, state_dir) as connection:
        found = differences(probe_of(connection, probe), probe_of(connection, other))
    if as_json:
        print_json([{"what": what, "one": one, "other": another} for what, one, another in found])
    else:
        print_differences(found, probe, other)


@commands.command()
def promote(
    probe: o.RegisteredProbe,
    stage: o.Stage = "live",
    actor: o.Actor = None,
    database_url: o.DatabaseUrl = None,
    state_dir: o.StateDir = None,
) -> None:
    """Make a registered probe the live one of its name, or put it in shadow. Takes effect when workers restart."""
    from monitor.service.registration import promote as promote_probe

    with writing(database_url, state_dir) as connection:
        entry, before = promote_probe(connection, probe, stage, actor_of(actor))
    instead = f" in place of {before}; awry probes rollback {entry.name} undoes it" if before is not None else ""
    say(f"{entry} is {entry.stage}{instead}. Restart the workers that load registry:{entry.stage}")


@commands.command()
def rollback(
    name: o.RegisteredName, actor: o.Actor = None, database_url: o.DatabaseUrl = None, state_dir: o.StateDir = None
) -> None:
    """Make that version of a probe live again that was live before. Takes effect when workers restart."""
    from monitor.service.registration import roll_back

    with writing(database_url, state_dir) as connection:
        entry, before = roll_back(connection, name, actor_of(actor))
    instead = f" in place of {before}" if before is not None else ""
    say(f"{entry} is live again{instead}. Restart the workers that load registry:live")


@commands.command()
def retire(
    probe: o.RegisteredProbe,
    actor: o.Actor = None,
    database_url: o.DatabaseUrl = None,
    state_dir: o.StateDir = None,
) -> None:
    """Take a registered probe out of use; its files, scores and card stay."""
    from monitor.service.registration import retire as retire_probe

    with writing(database_url, state_dir) as connection:
        entry, was = retire_probe(connection, probe, actor_of(actor))
    say(f"{entry} is retired, and was {was}")
