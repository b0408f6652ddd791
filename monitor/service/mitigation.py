"""Mitigated replies: generated under a probe's steering recipe, and without it where asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from monitor.errors import SettingsError
from monitor.stream.wire import WireMessage
from probes.capture.batches import token_limit
from probes.card import Probe
from probes.model.load import ChatModel
from probes.steer.generation import Reply, generate
from probes.steer.steering import steering


@dataclass(frozen=True)
class Mitigation:
    """The replies to one message; `plain` only where it was asked for."""

    mitigated: Reply
    plain: Reply | None
    recipe: str


class Mitigator:
    """Generates replies under one probe's steering recipe."""

    def __init__(
        self, chat: ChatModel, probe: Probe, *, also_plain: bool, max_new_tokens: int, max_tokens: int = 2048
    ) -> None:
        interventions = probe.interventions
        if not interventions:
            raise SettingsError(
                f"mitigate_with: probe {probe.name} has no steering recipe; make one with awry sweep or awry study"
            )
        self._chat = chat
        self._interventions = interventions
        self._also_plain = also_plain
        self._max_new_tokens = max_new_tokens
        # The reply needs positions too.
        self._most = max(1, token_limit(chat, max_tokens) - (max_new_tokens if chat.max_positions else 0))
        self.recipe = probe.recipe

    def __call__(self, messages: Sequence[WireMessage]) -> list[Mitigation]:
        """One Mitigation a message, in order. Of an over-long one the end is answered, as it is scored."""
        if not messages:
            return []
        prompts = [self._prompt(message) for message in messages]
        with steering(self._chat, self._interventions) as steered:
            mitigated = generate(self._chat, prompts, max_new_tokens=self._max_new_tokens, steered=steered)
        plain: list[Reply | None] = [None] * len(prompts)
        if self._also_plain:
            plain = list(generate(self._chat, prompts, max_new_tokens=self._max_new_tokens))
        return [Mitigation(m, p, self.recipe) for m, p in zip(mitigated, plain, strict=True)]

    def _prompt(self, message: WireMessage) -> str | list[int]:
        return self._chat.prompt_ids(self._chat.rendered(message.turns, message.tools))[-self._most :]


def choose_mitigator(probes: Sequence[Probe], wanted: str | None) -> Probe:
    """The probe whose recipe is used: the one named, else the first that has one."""
    for probe in probes:
        if probe.interventions and wanted in (None, probe.name):
            return probe
    named = wanted or "any loaded probe"
    raise SettingsError(
        f"mitigate_with: {named} has no steering recipe or is not loaded; make one with awry sweep or awry study"
    )
