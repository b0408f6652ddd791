"""Streams joined: the events or chunks of an answer as the one object that the provider gives without streaming.

Contract: `joined(events)` knows OpenAI's chat and completion chunks, Responses events, Anthropic's events, Bedrock's
ConverseStream, Gemini's and Ollama's chunks, by the names of fields. None where the list is no stream. Deltas of one
index are joined in the order in which they came; an event of an unknown kind is passed over.
"""

from __future__ import annotations

from typing import Any

from monitor.stream.formats import inner

Event = dict[str, Any]


def joined(raw: list[Any]) -> dict[str, Any] | None:
    """One answer."""
    events = [_event(each) for each in raw if isinstance(each, dict)]
    if not events or len(events) < len(raw):
        return None
    for first in events[:3]:
        kind = first.get("type")
        if isinstance(kind, str) and (kind.startswith("response.") or kind == "error"):
            return _responses(events)
        if isinstance(kind, str) and kind.startswith(("message_", "content_block_")):
            return _anthropic(events)
        if _BEDROCK & first.keys():
            return _bedrock(events)
        if isinstance(first.get("choices"), list):
            return _openai(events)
        if isinstance(first.get("candidates"), list):
            return _gemini(events)
        if "done" in first and ("message" in first or "response" in first):
            return _ollama(events)
    return None


_BEDROCK = frozenset(("messageStart", "contentBlockStart", "contentBlockDelta", "messageStop"))


def _event(raw: Event) -> Event:
    """An event without its wrapping: {"data": {...}} or {"data": "{...}"}, {"chunk": {...}}."""
    for key in ("data", "chunk"):
        within = raw.get(key)
        if isinstance(within, str):
            within = inner.structure(within)
        if isinstance(within, dict) and ("choices" not in raw and "candidates" not in raw):
            return within
    return raw


def _index(raw: Any) -> int:
    return raw if isinstance(raw, int) and not isinstance(raw, bool) else 0


def _text(raw: Any) -> str:
    return raw if isinstance(raw, str) else ""


def _add(into: dict[str, Any], key: str, raw: Any) -> None:
    """Append a delta to what there is of a field."""
    if isinstance(raw, str) and raw:
        before = into.get(key)
        # Deltas by the thousand: joined at the end.
        if isinstance(before, _Text):
            before.parts.append(raw)
        else:
            into[key] = _Text([*([before] if isinstance(before, str) else []), raw])
    elif isinstance(raw, list) and raw:
        listed = into.get(key)
        if not isinstance(listed, _List):
            # A copy: the first one may be the payload's own.
            listed = into[key] = _List(listed if isinstance(listed, list) else ())
        listed.extend(raw)


class _List(list[Any]):
    """A list in the making."""


class _Text:
    """A string in the making."""

    __slots__ = ("parts",)

    def __init__(self, parts: list[str]) -> None:
        self.parts = parts


def _made(into: dict[str, Any]) -> dict[str, Any]:
    return {key: "".join(each.parts) if isinstance(each, _Text) else each for key, each in into.items()}


def _openai(events: list[Event]) -> dict[str, Any]:
    whole: dict[str, Any] = {}
    choices: dict[int, dict[str, Any]] = {}
    messages: dict[int, dict[str, Any]] = {}
    calls: dict[int, dict[int, dict[str, Any]]] = {}
    for event in events:
        for key in ("id", "model", "created", "usage", "service_tier", "object"):
            if event.get(key) is not None:
                whole[key] = event[key]
        for choice in event["choices"] if isinstance(event.get("choices"), list) else ():
            if not isinstance(choice, dict):
                continue
            index = _index(choice.get("index"))
            kept = choices.setdefault(index, {"index": index})
            if choice.get("finish_reason") is not None:
                kept["finish_reason"] = choice["finish_reason"]
            message = messages.setdefault(index, {"role": "assistant"})
            _add(message, "content", choice.get("text"))
            delta = choice.get("delta", choice.get("message"))
            if isinstance(delta, dict):
                _delta(message, calls.setdefault(index, {}), delta)
    for index, message in messages.items():
        made = _made(message)
        if "audio" in made:
            made["audio"] = _made(made["audio"])
        if calls.get(index):
            made["tool_calls"] = [_call(calls[index][each]) for each in sorted(calls[index])]
        choices[index]["message"] = made
    return whole | {"choices": [choices[index] for index in sorted(choices)]}


def _delta(message: dict[str, Any], calls: dict[int, dict[str, Any]], delta: dict[str, Any]) -> None:
    for key in ("content", "refusal", "reasoning_content", "reasoning"):
        _add(message, key, delta.get(key))
    if isinstance(delta.get("audio"), dict):
        _add(message.setdefault("audio", {}), "transcript", delta["audio"].get("transcript"))
    old = delta.get("function_call")
    if isinstance(old, dict):
        call = calls.setdefault(-1, {})
        _add(call, "name", old.get("name"))
        _add(call, "arguments", old.get("arguments"))
    listed = delta.get("tool_calls")
    for position, each in enumerate(listed if isinstance(listed, list) else ()):
        if not isinstance(each, dict):
            continue
        call = calls.setdefault(_index(each.get("index", position)), {})
        if isinstance(each.get("id"), str):
            call["id"] = each["id"]
        function = each.get("function", each.get("custom"))
        if not isinstance(function, dict):
            continue
        _add(call, "name", function.get("name"))
        arguments = function.get("arguments", function.get("input"))
        if isinstance(arguments, dict):
            call["arguments"] = arguments
        else:
            _add(call, "arguments", arguments)


def _call(raw: dict[str, Any]) -> dict[str, Any]:
    made = _made(raw)
    identity = {"id": made.pop("id")} if "id" in made else {}
    return identity | {"type": "function", "function": made}


def _responses(events: list[Event]) -> dict[str, Any]:
    whole: dict[str, Any] = {}
    items: dict[int, dict[str, Any]] = {}
    texts: dict[int, dict[str, Any]] = {}
    done = False
    for event in events:
        kind = _text(event.get("type"))
        response, index = event.get("response"), _index(event.get("output_index"))
        if isinstance(response, dict):
            whole = response
            done = done or (kind not in ("response.created", "response.in_progress") and bool(response.get("output")))
        item = event.get("item")
        if isinstance(item, dict):
            items[index] = item
            if kind.endswith(".done"):
                texts.pop(index, None)
        elif kind.endswith(".delta") and isinstance(event.get("delta"), str):
            _add(
                texts.setdefault(index, {}),
                "arguments" if "arguments" in kind or "input" in kind else "text",
                event["delta"],
            )
    if done:
        return whole
    # The stream broke off, or only its deltas were kept.
    output = []
    for index in sorted({*items, *texts}):
        item, said = items.get(index, {}), _made(texts.get(index, {}))
        if said and str(item.get("type", "")).endswith("_call"):
            item = item | {"arguments": said.get("arguments", said.get("text", ""))}
        elif said:
            said_text = "\n".join(said.values())
            item = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": said_text}]}
        output.append(item)
    return whole | {"object": "response", "output": output}


def _anthropic(events: list[Event]) -> dict[str, Any]:
    whole: dict[str, Any] = {"type": "message", "role": "assistant"}
    blocks: dict[int, dict[str, Any]] = {}
    usage: dict[str, Any] = {}
    for event in events:
        kind, index = event.get("type"), _index(event.get("index"))
        if isinstance(event.get("message"), dict):
            whole |= event["message"]
            if isinstance(event["message"].get("usage"), dict):
                usage |= event["message"]["usage"]
        if isinstance(event.get("usage"), dict):
            usage |= event["usage"]
        delta = event.get("delta")
        if isinstance(event.get("content_block"), dict):
            blocks[index] = dict(event["content_block"])
        elif kind == "message_delta" and isinstance(delta, dict):
            whole |= {key: each for key, each in delta.items() if key.startswith("stop_")}
        elif isinstance(delta, dict):
            block = blocks.setdefault(index, {"type": "text"})
            _add(block, "text", delta.get("text"))
            _add(block, "thinking", delta.get("thinking"))
            _add(block, "json", delta.get("partial_json"))
    content = []
    for index in sorted(blocks):
        block = _made(blocks[index])
        if "json" in block:
            block["input"] = block.pop("json")
        content.append(block)
    start = whole.get("content")
    if usage:
        whole["usage"] = usage
    return whole | {"content": [*(start if isinstance(start, list) else []), *content]}


def _bedrock(events: list[Event]) -> dict[str, Any]:
    blocks: dict[int, dict[str, Any]] = {}
    whole: dict[str, Any] = {}
    for event in events:
        for kind, body in event.items():
            if not isinstance(body, dict):
                continue
            index = _index(body.get("contentBlockIndex"))
            if kind == "contentBlockStart" and isinstance(body.get("start"), dict):
                blocks[index] = {key: dict(each) for key, each in body["start"].items() if isinstance(each, dict)}
            elif kind == "contentBlockDelta" and isinstance(body.get("delta"), dict):
                _bedrock_delta(blocks.setdefault(index, {}), body["delta"])
            elif kind == "messageStop":
                whole["stopReason"] = body.get("stopReason")
            elif kind == "metadata":
                whole["usage"] = body.get("usage")
    content = [
        {key: _made(each) if isinstance(each, dict) else each for key, each in _made(blocks[index]).items()}
        for index in sorted(blocks)
    ]
    return whole | {"output": {"message": {"role": "assistant", "content": content}}}


def _bedrock_delta(block: dict[str, Any], delta: dict[str, Any]) -> None:
    _add(block, "text", delta.get("text"))
    for key in ("toolUse", "reasoningContent"):
        within = delta.get(key)
        if isinstance(within, dict):
            kept = block.setdefault(key, {})
            for name in ("input", "text"):
                _add(kept, name, within.get(name))


def _gemini(events: list[Event]) -> dict[str, Any]:
    whole: dict[str, Any] = {}
    candidates: dict[int, dict[str, Any]] = {}
    for event in events:
        whole |= {key: each for key, each in event.items() if key != "candidates"}
        for raw in event["candidates"] if isinstance(event.get("candidates"), list) else ():
            if not isinstance(raw, dict):
                continue
            index = _index(raw.get("index"))
            kept = candidates.setdefault(index, {"content": {"role": "model", "parts": []}})
            kept |= {key: each for key, each in raw.items() if key != "content"}
            content = raw.get("content")
            parts = content.get("parts") if isinstance(content, dict) else None
            for part in parts if isinstance(parts, list) else ():
                _gemini_part(kept["content"]["parts"], part)
    for kept in candidates.values():
        kept["content"]["parts"] = [_made(x) if isinstance(x, dict) else x for x in kept["content"]["parts"]]
    return whole | {"candidates": [candidates[index] for index in sorted(candidates)]}


def _gemini_part(parts: list[Any], part: Any) -> None:
    # Text goes on where the last chunk ended, unless that was thinking and this is not.
    last = parts[-1] if parts else None
    if (
        isinstance(part, dict)
        and isinstance(last, dict)
        and isinstance(part.get("text"), str)
        and isinstance(last.get("text"), str | _Text)
        and bool(part.get("thought")) == bool(last.get("thought"))
    ):
        if not isinstance(last["text"], _Text):
            parts[-1] = last = dict(last)
        _add(last, "text", part["text"])
    else:
        parts.append(part)


def _ollama(events: list[Event]) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant"}
    whole: dict[str, Any] = {}
    for event in events:
        whole |= {key: each for key, each in event.items() if key not in ("message", "response")}
        _add(message, "content", event.get("response"))
        if isinstance(event.get("message"), dict):
            for key in ("content", "thinking", "tool_calls"):
                _add(message, key, event["message"].get(key))
    return whole | {"message": _made(message)}
