"""A decoder's cache is found and handed over under whatever name its class has for it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from probes.model.kv_cache import cache_of, keys_and_values, new_cache, with_cache
from tests.support.models.tiny import FAMILIES, shared_chat


class Newest(nn.Module):
    def forward(self, cache: Any = None, **_: Any) -> Any:
        return cache


class Older(nn.Module):
    def forward(self, past_key_values: Any = None, **_: Any) -> Any:
        return past_key_values


class State(nn.Module):
    def forward(self, cache_params: Any = None, **_: Any) -> Any:
        return cache_params


@pytest.mark.parametrize("decoder", [Newest(), Older(), State()])
def test_the_decoder_gets_it_and_a_hook_sees_it(decoder: nn.Module) -> None:
    seen: list[Any] = []
    decoder.register_forward_pre_hook(lambda _m, _a, given: seen.append(cache_of(given)), with_kwargs=True)
    cache = object()
    assert decoder(input_ids=None, **with_cache(decoder, cache)) is cache
    decoder(input_ids=None)
    assert seen == [cache, None]


@pytest.mark.parametrize("family", FAMILIES)
def test_what_was_read_before_is_not_read_again(family: str) -> None:
    decoder = shared_chat(family).layout.decoder
    ids = torch.arange(30, 70).unsqueeze(0)
    cache = new_cache()
    with torch.no_grad():
        whole: Any = decoder(input_ids=ids, use_cache=False)
        decoder(input_ids=ids[:, :25], **with_cache(decoder, cache))
        held = keys_and_values(cache)
        rest: Any = decoder(input_ids=ids[:, 25:], **with_cache(decoder, cache))
    assert held
    assert all(one is not None and one[0].shape[2] == one[1].shape[2] == 25 for one in held)
    torch.testing.assert_close(rest[0], whole[0][:, 25:], atol=1e-4, rtol=1e-4)
