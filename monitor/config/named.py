"""What the settings name: files, folders, rules, expressions, programs, addresses. One check a function.

Contract: a check gets valid settings and gives a fault for each thing that is not there or cannot be used. Nothing is
created, and nothing outside of this machine is asked.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from monitor.errors import MonitorError
from monitor.setting_sources import Fault, Gathered, Place, file_variable, variable
from monitor.settings import Settings

_BUILT_IN = "write rules into it, or take rules_file away for the built-in ones"

Check = Callable[[Settings, Gathered], Iterable[Fault]]

# HOST:PORT that some process of awry listens on.
LISTENS = tuple(name for name in Settings.model_fields if name == "listen" or name.endswith("_listen"))


def state_folder(settings: Settings, given: Gathered) -> Iterator[Fault]:
    """The state folder, or the nearest folder above it that is there, can be written to."""
    if not _can_write(settings.state_dir):
        fix = "make it writable for this user, or set another folder with AWRY_STATE_DIR"
        yield _fault(given, "state_dir", f"this user may not write to {settings.state_dir}", fix)


def rules(settings: Settings, given: Gathered) -> Iterator[Fault]:
    """Every mistake of the rules file, with its own line."""
    from alerts.errors import RulesError
    from alerts.rules.file import load_rules

    path = settings.rules_file
    if path is None:
        return
    try:
        if not load_rules(path).all:
            yield Fault("", Place("file", str(path)), "has no rule: nobody would be notified", _BUILT_IN)
    except RulesError as error:
        for line in str(error).splitlines():
            number, colon, what = line.removeprefix(f"{path}:").partition(":")
            if line.startswith(f"{path}:") and colon and number.isdecimal():
                place = Place("file", str(path), int(number))
                yield Fault("", place, what.strip(), "correct the rule; docs/alerts.md has all fields")
            else:
                what = line.removeprefix("rules_file: ").removeprefix(f"{path}: ")
                yield _fault(given, "rules_file", what, _BUILT_IN)


def mapping(settings: Settings, given: Gathered) -> Iterator[Fault]:
    """Each expression by itself, then the mapping as a whole."""
    from monitor.stream.formats.mapping import Mapper

    faults = []
    for name, expression in settings.mapping.items():
        faults += _mapped({"prompt": "prompt", name: expression}, Mapper, given, name)
    if settings.mapping and not faults:
        faults += _mapped(settings.mapping, Mapper, given, "")
    yield from faults


def _mapped(
    expressions: dict[str, str], make: Callable[[dict[str, str]], object], given: Gathered, name: str
) -> list[Fault]:
    try:
        make(expressions)
    except MonitorError as error:
        what = str(error).removeprefix(f"mapping.{name}: ").removeprefix("mapping: ")
        loc = ("mapping", name) if name else ("mapping",)
        fix = "write a JMESPath expression; awry check SOURCE shows what it finds (docs/traffic.md)"
        return [Fault(".".join(loc), given.place(loc), what, fix)]
    return []


def formats(settings: Settings, given: Gathered) -> Iterator[Fault]:
    """The name of the format."""
    from monitor.stream.formats import names

    if settings.format not in ("auto", *names()):
        yield _fault(given, "format", "there is no such format", f"write one of auto, {', '.join(names())}")


def source(settings: Settings, given: Gathered) -> Iterator[Fault]:
    """Topics have names, files are there, and the start is one."""
    from monitor.stream.kafka.start_offset import parse_start
    from monitor.stream.wiring import SPOOL, check_files, topics_of

    fix = "write kafka:TOPIC, spool, - or files of JSON lines that are there"
    try:
        if not topics_of(settings) and settings.source not in ("-", SPOOL):
            check_files(settings)
    except MonitorError as error:
        yield _fault(given, "source", str(error).removeprefix("source: "), fix)
    if settings.start_from is not None:
        try:
            parse_start(settings.start_from)
        except MonitorError as error:
            what = str(error).removeprefix("start_from: ")
            yield _fault(given, "start_from", what, "write earliest, latest or a time such as 2026-01-31T00:00Z")


def outputs(settings: Settings, given: Gathered) -> Iterator[Fault]:
    """The folders of output files are there and can be written to."""
    from monitor.stream.wiring import outputs_of

    for name, out in outputs_of(settings).items():
        if out == "kafka:":
            yield _fault(given, name, "kafka: needs the name of a topic", "write kafka:TOPIC")
        elif not out.startswith("kafka:"):
            yield from _output(given, (name,), out)


def kafka(settings: Settings, given: Gathered) -> Iterator[Fault]:
    """Addresses, files of certificates, and logins that are complete."""
    address = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^:\s\[\]]+):(\d{1,5})")
    for part in (settings.kafka_bootstrap or "").split(",") if settings.kafka_bootstrap is not None else []:
        found = address.fullmatch(part.strip())
        if found is None or not 0 < int(found[2]) < 65536:
            fix = "write HOST:PORT, several with commas between them"
            yield _fault(given, "kafka_bootstrap", f"{part.strip()!r} is not HOST:PORT", fix)
    for name in ("kafka_ssl_ca_file", "kafka_ssl_cert_file", "kafka_ssl_key_file"):
        path = getattr(settings, name)
        if path is not None and not os.access(path, os.R_OK):
            yield _fault(given, name, f"cannot read {path}", "give a PEM file that this user may read")
    if settings.kafka_security_protocol.startswith("SASL"):
        for name in ("kafka_sasl_mechanism", "kafka_sasl_username", "kafka_sasl_password"):
            if getattr(settings, name) is None:
                what = f"is missing: kafka_security_protocol is {settings.kafka_security_protocol}"
                yield _fault(given, name, what, f"set {_by(name)}")


def databases(settings: Settings, given: Gathered) -> Iterator[Fault]:
    """Addresses that are URLs of PostgreSQL; a replica is another server than the database that it shows."""
    if settings.database_url is None and settings.read_database_url is None:
        return
    from storage.database import parse_url
    from storage.errors import StorageError

    urls = {}
    for name in ("database_url", "read_database_url"):
        secret = getattr(settings, name)
        if secret is not None:
            try:
                urls[name] = parse_url(secret.get_secret_value(), name)
            except StorageError as error:
                what, _, fix = str(error).removeprefix(f"{name}: ").partition("; ")
                yield _fault(given, name, what, fix)
    if settings.read_database_url is not None and settings.database_url is None:
        what = "there is no database_url that it could be a replica of"
        yield _fault(given, "read_database_url", what, f"set {_by('database_url')} too, or take this away")
    elif len(urls) == 2 and urls["database_url"] == urls["read_database_url"]:
        what = "is the address of database_url itself, and no replica"
        yield _fault(given, "read_database_url", what, "give a hot standby's, or take it away")


def destinations(settings: Settings, given: Gathered) -> Iterator[Fault]:
    """Each destination can be made: its URL, its certificates, the folder of its file."""
    from alerts.delivery.channel import make_channel
    from alerts.errors import AlertsError

    written = given.values.get("destinations", ())
    numbers = {each.get("name"): i for i, each in enumerate(written) if isinstance(each, dict)}
    for each in settings.destinations:
        loc = ("destinations", numbers.get(each.name, 0))
        name, place = f"destinations.{each.name}", given.place(loc)
        if each.path is not None:
            yield from _output(given, (*loc, "path"), str(each.path))
        if each.ca_file is not None and not os.access(each.ca_file, os.R_OK):
            fix = "give a PEM file that this user may read"
            yield Fault(name, given.place((*loc, "ca_file")), f"ca_file: cannot read {each.ca_file}", fix)
            continue
        try:
            make_channel(each)
        except AlertsError as error:
            yield Fault(
                name, place, str(error), "correct its options; docs/destinations.md has an example of each kind"
            )
        except Exception as error:  # a library that does not take the URL; its text may quote it
            what = f"kind {each.kind} does not take these options ({type(error).__name__})"
            yield Fault(name, place, what, "correct its options; docs/destinations.md has an example of each kind")


def addresses(settings: Settings, given: Gathered) -> Iterator[Fault]:
    """Addresses to listen on."""
    from monitor.telemetry.http_server import parse_address

    for name in LISTENS:
        written = getattr(settings, name)
        if written is not None:
            try:
                parse_address(written)
            except MonitorError as error:
                what = str(error).removeprefix("listen: ").partition("; ")[0]
                yield _fault(given, name, what, "write for example 127.0.0.1:9464, or [::1]:9464")


def judge(settings: Settings, given: Gathered) -> Iterator[Fault]:
    """The judge's program."""
    if settings.judge_command and shutil.which(settings.judge_command[0]) is None:
        what = f"there is no program {settings.judge_command[0]} that this user may run"
        yield _fault(given, "judge_command", what, "give its path, or install it")


def model(settings: Settings, given: Gathered) -> Iterator[Fault]:
    """The folder of a checkpoint, and the adapter; a hub id cannot be checked here."""
    path = Path(settings.model).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            yield _fault(given, "model", f"{path} has no config.json", "give the folder of a Hugging Face checkpoint")
    elif settings.model.startswith((".", "/", "~")) or settings.model.count("/") > 1:
        yield _fault(given, "model", f"there is no folder {path}", "give a folder, a built-in name or a hub id")
    if settings.scale is not None and settings.adapter is None:
        yield _fault(given, "scale", "there is no adapter to scale", "set adapter too, or take scale away")
    if settings.adapter is not None:
        from probes.errors import ProbesError
        from probes.model.adapters import adapter_spec

        try:
            adapter_spec(settings.adapter, settings.scale)
        except ProbesError as error:
            fix = "awry adapters list has the shipped ones; else give the folder that PEFT saved"
            yield _fault(given, "adapter", str(error).removeprefix("adapter: "), fix)


def probes(settings: Settings, given: Gathered) -> Iterator[Fault]:
    """Cards and tensors of the probes that are named, and the settings that name loaded probes."""
    by_name = {
        "shadow": settings.shadow,
        "judge_probes": settings.judge_probes,
        "judge_questions": tuple(settings.judge_questions),
        "judge_bands": tuple(settings.judge_bands),
        "mitigate_with": (settings.mitigate_with,) if settings.mitigate_with else (),
    }
    if not settings.probes and not any(by_name.values()):
        return
    from probes.card import load_probe, shipped_probes
    from probes.errors import ProbesError

    loaded = []
    for name in settings.probes or shipped_probes():
        try:
            loaded.append(load_probe(name))
        except ProbesError as error:
            fix = "awry probes list has the shipped ones; else give the path of a card (NAME.json)"
            yield _fault(given, "probes", str(error), fix)
    whole = len(loaded) == len(settings.probes or shipped_probes())
    names = sorted(probe.name for probe in loaded)
    if len(set(names)) != len(names):
        yield _fault(given, "probes", f"two of {', '.join(names)} share a name", "name each probe once")
    for setting, wanted in by_name.items():
        for unknown in sorted(set(wanted) - set(names)) if whole else ():
            fix = f"write one of {', '.join(names)}"
            yield _fault(given, setting, f"{unknown} is not among the probes", fix)


# With the settings that each is about: it is left out where one of them is wrong.
CHECKS: tuple[tuple[tuple[str, ...], Check], ...] = (
    (("state_dir",), state_folder),
    (("source", "follow", "start_from"), source),
    (("kafka_bootstrap", "kafka_security_protocol"), kafka),
    (("format",), formats),
    (("mapping",), mapping),
    (("model", "adapter", "scale"), model),
    (("probes",), probes),
    (("source", "mitigate", "answers_out", "verdicts_out", "dead_letters_out"), outputs),
    (("rules_file",), rules),
    (("database_url", "read_database_url"), databases),
    (("destinations",), destinations),
    (("judge_command",), judge),
    (LISTENS, addresses),
)


def _fault(given: Gathered, name: str, what: str, fix: str) -> Fault:
    return Fault(name, given.place((name,)), what, fix)


def _by(name: str) -> str:
    from monitor.settings import SECRETS

    return f"{variable(name)} or {file_variable(name)}" if name in SECRETS else variable(name)


def _output(given: Gathered, loc: tuple[str | int, ...], out: str) -> Iterator[Fault]:
    """A file that can be written, or made in a folder that is there."""
    from monitor.stream.wiring import unwritable

    why = unwritable(out)
    if why is not None:
        fix = f"make the folder {Path(out).absolute().parent}, writable for this user, or choose another file"
        yield Fault(".".join(map(str, loc)), given.place(loc), why, fix)


def _can_write(folder: Path) -> bool:
    there = next((each for each in (folder, *folder.absolute().parents) if each.exists()), None)
    return there is not None and there.is_dir() and os.access(there, os.W_OK | os.X_OK)
