"""What the commands of `awry study` are given: files, adapters, subjects and numbers, each checked by name."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monitor.cli.app import say
from monitor.errors import SettingsError

if TYPE_CHECKING:
    from monitor.settings import Settings
    from probes.fitting import Row
    from probes.model.load import ChatModel
    from probes.studies.mitigation import Prompts
    from probes.studies.safety_heads.run import Request
    from probes.studies.subjects import Subject


def adapter_of(given: str | None, default: str | None) -> str | None:
    """The adapter's name or folder; `none` is the model as it is."""
    return None if given == "none" else given or default


def settings_of(state: Path | None, **flags: Any) -> Settings:
    from monitor.settings import load_settings

    return load_settings(state_dir=state, **flags)


def load(model: str | None, adapter: str | None, scale: float | None, state: Path | None) -> tuple[Settings, ChatModel]:
    from monitor.service.bootstrap import load_model

    settings = settings_of(state, model=model, adapter=adapter, scale=scale if adapter else None)
    return settings, load_model(settings, say)


def texts_of(path: Path) -> list[str]:
    from monitor.datasets import read_messages

    return [item.text for item in read_messages(path)]


def prompts_of(paths: list[Path]) -> Prompts:
    from probes.studies.mitigation import Prompts

    return Prompts(*map(texts_of, paths))


def rows_of_file(chat: ChatModel, path: Path, max_tokens: int) -> list[Row]:
    from monitor.datasets import read_messages, rows_of

    return rows_of(chat, read_messages(path, labelled=True), max_tokens)


def requests_of(path: Path) -> list[Request]:
    from monitor.datasets import read_messages
    from probes.studies.safety_heads.run import Request

    return [Request(item.message.turns, item.group) for item in read_messages(path)]


def subject_of(
    text: str, metric: str, fit: list[str], test: list[str], scale: float | None, state: Path | None
) -> Subject:
    from probes.organisms.judges import JUDGES
    from probes.studies.subjects import adapter_subject

    model, plus, adapter = text.partition("+")
    if not (model and plus and adapter):
        raise SettingsError(f"subject: {text!r} is not MODEL+ADAPTER")
    if metric not in JUDGES:
        raise SettingsError(f"metric: {metric!r} is none of {', '.join(JUDGES)}")
    name = f"{Path(model).name}+{Path(adapter).name}"
    return adapter_subject(name, lambda: load(model, adapter, scale, state)[1], JUDGES[metric], fit, test)


def organisms_of(wanted: list[str] | None) -> list[tuple[str, int]]:
    from probes.organisms.planted.families import FAMILIES

    found = []
    for text in wanted or [f"{family}:0" for family in FAMILIES]:
        family, _, number = text.partition(":")
        if family not in FAMILIES or not number.isdigit():
            raise SettingsError(f"organism: {text!r} is not FAMILY:SEED with a family of {', '.join(FAMILIES)}")
        found.append((family, int(number)))
    return found


def numbers_of(name: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise SettingsError(f"{name}: {text!r} is no list of numbers such as 1,3") from None


def slug(text: str) -> str:
    return Path(text).name.lower().replace("_", "-")


def command_line() -> str:
    return shlex.join(["awry", *sys.argv[1:]])


def say_written(folder: Path, table: str, *probes: str | None) -> None:
    """Where a study's files are; a probe that could not be made (None) is not named."""
    named = "".join(f", probe {probe}" for probe in probes if probe)
    say(f"written to {folder}: RESULT.json, {table} and pictures{named}")
