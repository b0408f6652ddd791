"""Steering inside the server: a probe's recipe acts on the tokens of some requests, and on no others in their batch.

Contract: `Steerer(interventions, n_slots, device, slots_of_pass)` attaches to the blocks; `begin(slots)` says before a
pass which of its tokens are steered, by their KV slots. Interventions are of residual sites and the final norm. What
acts at a block is read from the next one on: a probe at the same site reads what stood there before.

Keys and values of steered tokens are not those of the same tokens elsewhere: prefix caching must be off, so that no
other request gets them (`check`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from probes.card import Probe
from probes.steer.steering import Intervention, change
from probes.vllm.modules import Parts, normed_of, stream_of
from probes.vllm.settings import ConnectorSettings, VllmSettingsError


def recipe_of(probes: Sequence[Probe], settings: ConnectorSettings, *, prefix_caching: bool) -> Probe | None:
    """The probe whose recipe is used, where the server steers. VllmSettingsError where it cannot."""
    if settings.steer == "off":
        return None
    found = next((p for p in probes if p.interventions and settings.steer_with in (None, p.name)), None)
    if found is None:
        raise VllmSettingsError(
            f"steer: {settings.steer_with or 'no loaded probe'} has no steering recipe or is not loaded; make one with "
            "awry sweep or awry study, or set steer to off"
        )
    if any(each.direction.site.kind == "head" for each in found.interventions):
        raise VllmSettingsError(f"steer: the recipe of {found.name} acts on heads; the server steers residual sites")
    if prefix_caching:
        raise VllmSettingsError(
            "steer: prefix caching would give a steered request's keys and values to others; start with "
            "--no-enable-prefix-caching, or set steer to off"
        )
    return found


class Steerer:
    """See the module."""

    def __init__(
        self,
        interventions: Sequence[Intervention],
        n_slots: int,
        device: torch.device,
        slots_of_pass: Callable[[], Tensor | None],
    ) -> None:
        self._interventions = tuple(interventions)
        self._device = device
        self._slots_of_pass = slots_of_pass
        # Padding has slot -1, which is the last place.
        self._steered = torch.zeros(n_slots + 1, dtype=torch.bool, device=device)
        self._now: Tensor | None = None

    def begin(self, slots: Sequence[int]) -> None:
        """The next pass steers the tokens in these slots."""
        if self._now is not None:
            self._steered[self._now] = False
        self._now = torch.tensor(slots, dtype=torch.long, device=self._device) if slots else None
        if self._now is not None:
            self._steered[self._now] = True

    def attach(self, parts: Parts) -> None:
        """Hooks at the recipe's sites, behind those that read there."""
        for each in self._interventions:
            site = each.direction.site
            final = site.kind == "final"
            module = parts.norm if final else parts.blocks[site.layer]
            module.register_forward_hook(self._hook(change(each, self._device), normed_of if final else stream_of))

    def _hook(self, changed: Callable[[Tensor], Tensor], read: Callable[[Any], Tensor]) -> Callable[..., Any]:
        @torch.inference_mode()
        def hook(_module: nn.Module, _args: Any, output: Any) -> Any:
            if self._now is None or (slots := self._slots_of_pass()) is None:
                return None
            x = read(output)[: slots.shape[0]].float()
            delta = changed(x) * self._steered[slots].unsqueeze(1)
            hidden: Tensor = output if isinstance(output, Tensor) else output[0]
            hidden = hidden.clone()
            hidden[: slots.shape[0]] += delta.to(hidden.dtype)
            return hidden if isinstance(output, Tensor) else (hidden, *output[1:])

        return hook
