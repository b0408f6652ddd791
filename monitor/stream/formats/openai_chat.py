"""OpenAI's chat completions, and what is like them: legacy completions, Ollama, vLLM, Cohere.

Read are: a request alone; a request and its response in any of the wrappings that `exchange.py` knows, a line of a
batch among them; one object with the fields of both; streamed chunks. An object with `messages` or `prompt` at the top
is awry's own JSON, unless it has a field that only a request of an API has, or `model` and none of the fields that only
awry's own has (id, tenant, conversation_id, timestamp, trace_id, attributes, response). Either is read to the same
turns, but for `messages` with `prompt`: of awry's own JSON the messages are read, of a request both. Fields of awry's
own beside a request count before its own.
"""

from __future__ import annotations

from typing import Any

from monitor.stream.formats import asked, exchange
from monitor.stream.formats.draft import Draft, UnreadableError
from monitor.stream.formats.sides import drafts

NAME = "openai_chat"

# Names of awry's own JSON, and those of them that no request has.
_OWN = frozenset(
    ("id", "prompt", "messages", "response", "tools", "model", "tenant", "user", "conversation_id", "timestamp")
) | {"trace_id", "attributes"}
_IDENTITIES = frozenset(("id", "tenant", "conversation_id", "timestamp", "trace_id", "attributes"))
_ONLY_OWN = _IDENTITIES | {"response", "prompt"}
# Fields of requests and answers; whatever holds text that a model reads is here.
_OF_REQUESTS = frozenset(
    (
        *asked.SETTING_KEYS,
        *asked.SYSTEM_KEYS,
        *(key for key in asked.INPUT_KEYS if key not in ("messages", "prompt")),
        *asked.OTHER_KEYS,
        *("choices", "functions", "stream_options", "stop", "logit_bias", "logprobs", "top_logprobs", "metadata"),
        *("parallel_tool_calls", "function_call", "store", "modalities", "audio", "web_search_options", "verbosity"),
        *("safety_identifier", "prompt_cache_key", "echo", "best_of", "keep_alive", "think", "chat_template_kwargs"),
        *("min_p", "repetition_penalty", "guided_json", "ignore_eos", "output", "completion"),
    )
)


def recognises(value: Any) -> bool:
    """Whether there is a request that is not awry's own JSON."""
    found = exchange.of(value)
    if found is None:
        return False
    if found.around or not found.request:
        return True
    keys = value.keys()
    if keys <= _OWN:
        return (
            isinstance(value.get("response"), dict | list)
            or isinstance(value.get("prompt"), list)
            or ("model" in keys and "messages" in keys and keys.isdisjoint(_ONLY_OWN))
            or ("model" in keys and "messages" in keys and "prompt" in keys and keys.isdisjoint(_IDENTITIES))
        )
    return not keys.isdisjoint(_OF_REQUESTS)


def read(value: Any) -> list[Draft]:
    """A draft for each input."""
    return read_any(value)


def read_any(value: Any) -> list[Draft]:
    """The same for every format of requests and answers: they differ in names, which are all looked for."""
    if isinstance(value, list):
        value = {"messages": value}
    found = exchange.taken(value)
    if found is None:
        raise UnreadableError("request: holds no messages, input or prompt")
    return drafts(found)
