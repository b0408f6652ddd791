"""What commands are given, made ready: the database, the model with its adapter, who types, durations, files."""

from __future__ import annotations

import getpass
import math
import os
import shlex
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from monitor.cli.output import say
from monitor.errors import SettingsError
from probes.progress import Progress, silent

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from alerts.lifecycle.audit import Actor
    from monitor.settings import Settings
    from probes.model.load import ChatModel


# What `load` is called with: model, adapter, scale, state folder, chat template.
LoadFlags: TypeAlias = "tuple[str | None, str | None, float | None, Path | None, Path | None]"


@contextmanager
def opened(database_url: str | None, state_dir: Path | None, progress: Progress = silent) -> Iterator[Engine]:
    """An engine on the database of the settings, whose schema is at head, until the block ends."""
    from monitor.settings import load_settings

    with opened_by(load_settings(database_url=database_url, state_dir=state_dir), progress) as engine:
        yield engine


@contextmanager
def opened_by(settings: Settings, progress: Progress = silent) -> Iterator[Engine]:
    """The same for settings that are already read."""
    from monitor.service.bootstrap import open_database

    engine = open_database(settings, progress)
    try:
        yield engine
    finally:
        engine.dispose()


@contextmanager
def reading(database_url: str | None, state_dir: Path | None, progress: Progress = silent) -> Iterator[Connection]:
    """A connection; what is changed on it is not committed."""
    with opened(database_url, state_dir, progress) as engine, engine.connect() as connection:
        yield connection


@contextmanager
def writing(database_url: str | None, state_dir: Path | None) -> Iterator[Connection]:
    """A connection in one transaction, which is committed at the end of the block."""
    with opened(database_url, state_dir) as engine, engine.begin() as connection:
        yield connection


def state_folder(state_dir: Path | None) -> Path:
    from monitor.settings import load_settings

    return load_settings(state_dir=state_dir).state_dir


def load(
    model: str | None,
    adapter: str | None,
    scale: float | None,
    state_dir: Path | None,
    chat_template: Path | None = None,
) -> tuple[Settings, ChatModel]:
    """The settings and the model with its adapter."""
    from monitor.settings import load_settings

    settings = load_settings(
        model=model, adapter=adapter, scale=scale, state_dir=state_dir, chat_template=chat_template
    )
    return settings, load_by(settings)


def load_by(settings: Settings) -> ChatModel:
    """The model with its adapter of settings that are already read."""
    from monitor.service.bootstrap import load_model

    return load_model(settings, say)


def base_loader(model: str, state_dir: Path | None) -> Callable[[], ChatModel]:
    """What loads a model as it is, in float32 on the CPU, to be trained; with the chat template of the settings."""
    from monitor.service.bootstrap import load_model
    from monitor.settings import load_settings

    settings = load_settings(model=model, state_dir=state_dir, dtype="float32", device="cpu")
    return partial(load_model, settings.model_copy(update={"adapter": None, "scale": None}), say)


def actor_of(name: str | None) -> Actor:
    """Who types the command: the name given, else the user's."""
    from alerts.lifecycle.audit import Actor

    try:
        user = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = f"uid {os.getuid()}"
    return Actor(name or user, "cli", socket.gethostname())


def duration_of(name: str, text: str) -> timedelta:
    """A duration such as 1d12h; the error names the option."""
    from alerts.rules.durations import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise SettingsError(f"{name}: {error}") from None


def filled(**given: str | None) -> None:
    """Refuses a filter that is empty, as one from a variable of a script that is not set: nothing would match it. The
    error names the option."""
    for name, value in given.items():
        if value is not None and not value.strip():
            raise SettingsError(f"{name}: is empty; write what it is to match, or leave it out")


def moment_of(name: str, text: str | None) -> datetime | None:
    """A time, in UTC where it has no zone, or a duration before now; the error names the option."""
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
        return at.astimezone(UTC) if at.tzinfo is not None else at.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        pass
    try:
        return datetime.now(UTC) - duration_of(name, text)
    except (SettingsError, OverflowError):
        raise SettingsError(
            f"{name}: write a time such as 2026-11-01T14:05Z, or how long ago, such as 24h or 7d"
        ) from None


def numbers_of(name: str, text: str) -> tuple[float, ...]:
    """A list such as 1,3; the error names the option."""
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or not all(map(math.isfinite, numbers)):
        raise SettingsError(f"{name}: {text[:40]!r} is no list of numbers such as 1,3")
    return numbers


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise SettingsError(f"{name}: {value!r} is none of {', '.join(choices)}")


def texts_of(path: Path) -> list[str]:
    """The text of each message of a file."""
    from monitor.datasets import read_messages

    return [item.text for item in read_messages(path)]


def command_line() -> str:
    """The command as it was typed, for a study's record."""
    return shlex.join(["awry", *sys.argv[1:]])
