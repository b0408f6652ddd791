"""What the command tree is made of: groups of commands, deprecated names, options from the fields of a dataclass.

Contract: a deprecated name works like the new one, is not in any help text, and prints one line on standard error.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any, TypeVar, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

from monitor.cli.output import say

Flags = TypeVar("Flags")
Function = TypeVar("Function", bound=Callable[..., Any])

# For one release. A flag's old name holds for the commands that have the new one.
DEPRECATED_FLAGS = {
    "--group": "--kafka-group",
    "--judge": "--metric",
    "--name": "--recipe",
    "--rules": "--rules-file",
}
DEPRECATED_COMMANDS = {"settings": "config list", "show": "messages show", "token": "tokens"}


class Command(TyperCommand):
    """A command that also takes the deprecated names of its flags."""

    # The types of typer's copy of click are private to it.
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        own = {name for parameter in self.get_params(ctx) for name in parameter.opts}
        renamed = {old: new for old, new in DEPRECATED_FLAGS.items() if new in own and old not in own}
        end = args.index("--") if "--" in args else len(args)
        written: list[str] = []
        for word in args[:end]:
            name, equals, value = word.partition("=")
            if name in renamed:
                _warn(ctx, name, renamed[name])
                word = renamed[name] + equals + value
            written.append(word)
        return super().parse_args(ctx, written + args[end:])


class Root(TyperGroup):
    """The root, which also takes the deprecated names of commands."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        new = DEPRECATED_COMMANDS.get(args[0])
        if new is not None:
            _warn(ctx, f"awry {args[0]}", f"awry {new}")
            args = [*new.split(), *args[1:]]
        return super().resolve_command(ctx, args)


class Commands(typer.Typer):
    """A group of commands, alone for a noun or added without a name: it prints help where a command is missing."""

    def __init__(self, help: str | None = None, **settings: Any) -> None:
        super().__init__(help=help, no_args_is_help=not settings.get("invoke_without_command"), **settings)

    def command(self, name: str | None = None, **settings: Any) -> Callable[[Function], Function]:
        def register(function: Function) -> Function:
            # Paragraphs as they are meant: typer would keep the line breaks of all but the first.
            text = "\n\n".join(" ".join(part.split()) for part in (inspect.getdoc(function) or "").split("\n\n"))
            return typer.Typer.command(self, name, cls=Command, help=text, **settings)(function)

        return register


def takes(flags: type[Flags]) -> Callable[[Callable[[Flags], None]], Callable[..., None]]:
    """Gives a command the fields of a dataclass as options: types, help texts and defaults are those of the fields."""
    hints = get_type_hints(flags, include_extras=True)
    parameters = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in fields(flags)  # type: ignore[arg-type]
    ]

    def decorate(command: Callable[[Flags], None]) -> Callable[..., None]:
        def parsed(**given: Any) -> None:
            command(flags(**given))

        parsed.__name__, parsed.__doc__, parsed.__module__ = command.__name__, command.__doc__, command.__module__
        parsed.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        parsed.__annotations__ = dict(hints)
        return parsed

    return decorate


def _warn(context: Any, old: str, new: str) -> None:
    if not context.resilient_parsing:  # the shell asks for completions
        say(f"{old} is deprecated, use {new}")
