"""What the studies share: the adapter that is meant, the model with it, and where the results are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from monitor.cli import inputs
from monitor.cli.output import say
from monitor.errors import SettingsError

if TYPE_CHECKING:
    from monitor.settings import Settings
    from probes.model.load import ChatModel


def adapter_of(given: str | None, default: str | None) -> str | None:
    """The adapter's name or folder; `none` is the model as it is."""
    return None if given == "none" else given or default


def load(
    model: str | None, adapter: str | None, scale: float | None, state_dir: Path | None
) -> tuple[Settings, ChatModel]:
    """The settings and the model; without an adapter there is nothing to scale."""
    return inputs.load(model, adapter, scale if adapter else None, state_dir)


def check_control(adapter: str | None) -> None:
    """Before a model is loaded: that there is such a control adapter."""
    from probes.errors import ModelError
    from probes.model.adapters import adapter_spec

    if adapter is None:
        return
    try:
        adapter_spec(adapter)
    except ModelError as error:
        raise SettingsError(f"control_adapter: {error}; name one by --control-adapter") from None


def add_control(chat: ChatModel, adapter: str | None, scale: float) -> str | None:
    """The name in the model of a second adapter, which is loaded but not active."""
    if adapter is None:
        return None
    from probes.model.adapters import adapter_spec
    from probes.model.load import add_adapter

    active = str(chat.active)
    spec = adapter_spec(adapter, scale)
    add_adapter(chat, spec)
    chat.use(active)
    return spec.name


def slug(text: str) -> str:
    """A folder or file as a part of a name."""
    return Path(text).name.lower().replace("_", "-")


def report_result(lines: list[str], folder: Path, table: str, *probes: str | None, as_json: bool) -> None:
    """The verdict, or RESULT.json; then where the files are. A probe that could not be made (None) is not named."""
    if as_json:
        typer.echo((folder / "RESULT.json").read_text(encoding="utf-8"), nl=False)
    for line in [] if as_json else lines:
        typer.echo(line)
    named = "".join(f", probe {probe}" for probe in probes if probe)
    say(f"written to {folder}: RESULT.json, {table} and pictures{named}")
