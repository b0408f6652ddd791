"""`awry attack`: what a probe withstands, by families of transformations and against a search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monitor.cli import options as o
from monitor.cli.early import check_folder_out
from monitor.cli.inputs import check_choice, load
from monitor.cli.output import print_json, say
from monitor.cli.tree import Commands, takes
from monitor.errors import SettingsError

if TYPE_CHECKING:
    from monitor.datasets import Labelled
    from probes.attacks.adaptive import AdaptiveReport
    from probes.attacks.report import AttackReport
    from probes.card import Probe
    from probes.model.load import ChatModel
    from probes.reading import Conversation

commands = Commands()

# Of a file of benign messages, at least so many are scored and as many are the pool.
_FEWEST_BENIGN = 10


@dataclass(frozen=True, kw_only=True)
class AttackFlags:
    probe: o.NamedProbes
    harmful: o.RequiredHarmful
    benign: o.RequiredBenign
    families: o.Families = None
    rows: o.AttackRows = None
    wordings: o.Wordings = 1
    adaptive: o.Adaptive = None
    queries: o.Queries = 100
    seed: o.Seed = 0
    write_card: o.WriteCard = False
    model: o.Model = None
    adapter: o.Adapter = None
    scale: o.Scale = None
    chat_template: o.ChatTemplate = None
    out: o.Out = Path("attacks")
    as_json: o.Json = False
    state_dir: o.StateDir = None


@dataclass(frozen=True)
class Messages:
    """What the suite is run on; the pool is the rest of the benign messages."""

    harmful: list[Conversation]
    benign: list[Conversation]
    pool: list[str]


@commands.command()
@takes(AttackFlags)
def attack(flags: AttackFlags) -> None:
    """Try to get harmful messages past a probe: a table of attack families, the worst first, a picture and JSON.

    Each family is applied to harmful and to benign messages, and both are flagged at the card's threshold. Benign
    messages that are not scored are the harmless text of the families of length. With --adaptive a search for suffixes
    is run instead, or beside the families where --families is given.
    """
    from probes.attacks.families import named
    from probes.attacks.suite import SuitePlan, run_suites, target_of
    from probes.card import load_probe
    from probes.identity import check_identity

    probes = [load_probe(name) for name in flags.probe]
    _check(flags, probes)
    check_folder_out("out", flags.out)
    families = named((flags.families or "").split(","))
    target_of(probes)
    messages = messages_of(flags.harmful, flags.benign, flags.rows, flags.seed)
    settings, chat = load(flags.model, flags.adapter, flags.scale, flags.state_dir, flags.chat_template)
    for probe in probes:
        check_identity(probe.card, chat)
        _warn_of_seen(probe, messages)
    suites: list[AttackReport | None] = [None for _ in probes]
    if flags.adaptive is None or flags.families is not None:
        plan = SuitePlan(
            families,
            seed=flags.seed,
            wordings_per_row=flags.wordings,
            max_tokens=settings.max_tokens,
            max_windows=settings.max_windows,
        )
        suites = list(
            run_suites(chat, probes, messages.harmful, messages.benign, pool=messages.pool, plan=plan, progress=say)
        )
    searches = [_searched(chat, probe, messages, flags, settings) for probe in probes]
    report(probes, suites, searches, flags.out, cards=flags.probe if flags.write_card else None, as_json=flags.as_json)


def _check(flags: AttackFlags, probes: Sequence[Probe]) -> None:
    from probes.attacks.adaptive import METHODS

    if flags.adaptive is not None:
        check_choice("adaptive", flags.adaptive, METHODS)
    if len({_stem(probe) for probe in probes}) != len(probes):
        raise SettingsError("probe: two have the same name and version; give each once")
    if flags.write_card and any(Path(name).suffix != ".json" for name in flags.probe):
        raise SettingsError("write_card: give --probe as the path of a card that may be written (NAME.json)")


def _warn_of_seen(probe: Probe, messages: Messages) -> None:
    from probes.seen import seen_among, seen_warning, text_of

    texts = [text_of(each.turns, each.response) for each in (*messages.harmful, *messages.benign)]
    warning = seen_warning(seen_among(probe.card.seen, texts), len(texts), probe.name)
    if warning is not None:
        say(warning)


def messages_of(harmful: Path, benign: Path, rows: int | None, seed: int) -> Messages:
    """The messages of two files; labels, where a file has them, say which of its messages count."""
    from monitor.datasets import read_messages

    bad = [each for each in read_messages(harmful) if each.label is not False]
    good = [each for each in read_messages(benign) if not each.label]
    if not bad:
        raise SettingsError(f"harmful: all messages of {harmful.name} are labelled aligned; give misaligned ones")
    if not good:
        raise SettingsError(f"benign: all messages of {benign.name} are labelled misaligned; give aligned ones")
    return chosen(bad, good, rows, seed, benign.name)


def chosen(bad: Sequence[Labelled], good: Sequence[Labelled], rows: int | None, seed: int, name: str) -> Messages:
    """At most `rows` messages of each class, drawn by the seed, and the rest of the benign ones as the pool."""
    from probes.attacks.base import rng_of

    different = list({each.text: each for each in good}.values())
    if len(different) < 2 * _FEWEST_BENIGN:
        raise SettingsError(
            f"benign: {name} has {len(different)} different messages; at least {2 * _FEWEST_BENIGN} are needed, since "
            "those that are not scored are the text that messages are hidden in: give more"
        )
    mixed = rng_of(seed, "benign").sample(different, len(different))
    half = min(rows or len(mixed), len(mixed) // 2)
    harmful = list(bad)
    if rows is not None and rows < len(harmful):
        harmful = rng_of(seed, "harmful").sample(harmful, rows)
    return Messages(
        [each.conversation for each in harmful],
        [each.conversation for each in mixed[:half]],
        [text for each in mixed[half:] if (text := _asked(each))],
    )


def _asked(each: Labelled) -> str:
    from probes.attacks.base import request_turn, text_of

    turns = each.message.turns
    return text_of(turns[request_turn(turns)]).strip()


def _searched(
    chat: ChatModel, probe: Probe, messages: Messages, flags: AttackFlags, settings: Any
) -> AdaptiveReport | None:
    from typing import get_args

    from probes.attacks.adaptive import AdaptivePlan, Method, run_adaptive
    from probes.attacks.attempts import words_of

    method = next((m for m in get_args(Method) if m == flags.adaptive), None)
    if method is None:
        return None
    plan = AdaptivePlan(method, flags.queries, flags.seed, settings.max_tokens, settings.max_windows)
    return run_adaptive(chat, probe, messages.harmful, words_of(messages.pool), plan, say)


def report(
    probes: Sequence[Probe],
    suites: Sequence[AttackReport | None],
    searches: Sequence[AdaptiveReport | None],
    out: Path,
    *,
    cards: Sequence[str] | None,
    as_json: bool,
) -> None:
    """Write JSON and pictures, the cards where they are given, and print tables, or the JSON."""
    from monitor.cli.render.attacks import print_adaptive, print_attacks
    from probes.attacks.picture import plot_adaptive, plot_attacks

    documents = []
    for probe, suite, search in zip(probes, suites, searches, strict=True):
        found: dict[str, Any] = {"probe": probe.name, "version": probe.card.version, "digest": probe.digest}
        found |= {"attacks": suite.plain()} if suite is not None else {}
        found |= {"adaptive": search.plain()} if search is not None else {}
        stem = out / _stem(probe)
        if suite is not None:
            plot_attacks(suite, picture := stem.with_name(f"{stem.name}.attacks.png"))
            found["picture"] = str(picture)
        _write(stem.with_name(f"{stem.name}.attacks.json"), found)
        documents.append(found)
        if not as_json:
            if suite is not None:
                print_attacks(suite)
            if search is not None:
                print_adaptive(search)
    made = [search for search in searches if search is not None]
    if made:
        plot_adaptive(made, out / f"adaptive-{made[0].method}.png")
    if as_json:
        print_json({"probes": documents})
    if cards is not None:
        _write_cards(cards, suites, searches, probes)
    say(f"written to {out}")


def _write_cards(
    cards: Sequence[str],
    suites: Sequence[AttackReport | None],
    searches: Sequence[AdaptiveReport | None],
    probes: Sequence[Probe],
) -> None:
    from probes.attacks.report import write_to_card

    for card, suite, search, probe in zip(cards, suites, searches, probes, strict=True):
        found: dict[str, dict[str, Any]] = {} if search is None else {search.method: search.plain()}
        write_to_card(Path(card), probe.digest, None if suite is None else suite.plain(), found)
        say(f"written into {card}")


def _write(path: Path, document: Any) -> None:
    import json

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"out: {path.parent} cannot be written ({error.strerror}); choose another") from error


def _stem(probe: Probe) -> str:
    return f"{probe.name}-v{probe.card.version}"
