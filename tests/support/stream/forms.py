"""Forms that a sender may give a request: what a gateway, a careless client or somebody who hides would send.

`FORMS` gives, for a text, the payload and the text that a model server would read of it (the text itself unless the
form adds to it). A form that no server could read whole is in `NOT_WHOLE`, with why.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from typing import Any

LONG = "The baker opens at seven and sells rye bread, rolls and plum cake. " * 160


def chat(text: str, **more: Any) -> dict[str, Any]:
    """An OpenAI-style request of one turn."""
    return {"model": "m", "messages": [{"role": "user", "content": text}]} | more


def turn(content: Any, **more: Any) -> dict[str, Any]:
    """One turn with any content."""
    return {"messages": [{"role": "user", "content": content} | more]}


def own(text: str, **more: Any) -> dict[str, Any]:
    """awry's own JSON."""
    return {"id": "m", "prompt": text} | more


def encoded(value: Any) -> bytes:
    """As JSON in UTF-8."""
    return json.dumps(value).encode()


def nested(levels: int) -> Any:
    """Lists within lists."""
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


FORMS: dict[str, Callable[[str], bytes]] = {
    # Contents.
    "one part": lambda t: encoded(turn([{"type": "text", "text": t}])),
    "input part": lambda t: encoded(turn([{"type": "input_text", "text": t}])),
    "part without a type": lambda t: encoded(turn([{"text": t}])),
    "part of an unknown type": lambda t: encoded(turn([{"type": "mystery", "text": t}])),
    "part that nests its text": lambda t: encoded(turn([{"type": "wrapped", "content": [{"text": t}]}])),
    "part that is a string": lambda t: encoded(turn([t])),
    "content in an object": lambda t: encoded(turn({"type": "text", "text": t})),
    "contents in a list in a list": lambda t: encoded(turn([[{"type": "text", "text": t}]])),
    "a document in line": lambda t: encoded(
        turn([{"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": t}}])
    ),
    "parts of Gemini": lambda t: encoded({"contents": [{"role": "user", "parts": [{"text": t}]}]}),
    "a request of Bedrock": lambda t: encoded(turn([{"text": t}]) | {"modelId": "m"}),
    "a request of the Responses API": lambda t: encoded({"model": "m", "input": t}),
    "items of the Responses API": lambda t: encoded({"model": "m", "input": [{"role": "user", "content": t}]}),
    "a prompt of completions": lambda t: encoded({"model": "m", "prompt": [t]}),
    # Roles.
    "role in capitals": lambda t: encoded(turn(t, role="USER")),
    "role human": lambda t: encoded(turn(t, role="human")),
    "role missing": lambda t: encoded({"messages": [{"content": t}]}),
    "role that is a number": lambda t: encoded(turn(t, role=7)),
    "turns of ShareGPT": lambda t: encoded({"conversations": [{"from": "human", "value": t}]}),
    # Side fields.
    "user of 513 characters": lambda t: encoded(own(t, user="u" * 513)),
    "time that is none": lambda t: encoded(own(t, timestamp="yesterday")),
    "time out of range": lambda t: encoded(own(t, timestamp="9999-12-31T23:59:59-12:00")),
    "tenant that is a list": lambda t: encoded(own(t, tenant=["shop"])),
    "id that is a number": lambda t: encoded(own(t, id=10**18)),
    "id missing": lambda t: encoded({"prompt": t}),
    "id of 10,000 characters": lambda t: encoded(own(t, id="x" * 10_000)),
    "model that is an object": lambda t: encoded(own(t, model={"name": "m"})),
    "attributes that are a string": lambda t: encoded(own(t, attributes="a")),
    "attributes that are not finite": lambda t: encoded(own(t, attributes={"a": float("nan")})),
    "a number of 5,000 digits": lambda t: (
        b'{"id":"m","prompt":"%s","attributes":{"seed":%s}}' % (t.encode(), b"9" * 5000)
    ),
    "attributes of 500 levels": lambda t: encoded(own(t, attributes={"a": nested(500)})),
    "unknown fields": lambda t: encoded(own(t, **{f"f{n}": [n] for n in range(500)})),
    "prompt beside no messages": lambda t: encoded(own(t, messages=[])),
    "response that is a number": lambda t: encoded(own(t, response=7)),
    "names in capitals": lambda t: encoded({"Messages": [{"Role": "user", "Content": t}]}),
    # Encodings.
    "byte order mark": lambda t: b"\xef\xbb\xbf" + encoded(own(t)),
    "escaped": lambda t: b'{"id":"m","prompt":"' + b"".join(b"\\u%04x" % ord(c) for c in t) + b'"}',
    "white space around": lambda t: b" \r\n\t" + json.dumps(own(t), indent=8).encode() + b"\r\n",
    "gzip": lambda t: gzip.compress(encoded(own(t))),
    # Wrappings.
    "within an array": lambda t: encoded([own(t)]),
    "request and response": lambda t: encoded({"request": chat(t), "response": {"choices": []}}),
    "response redacted": lambda t: encoded({"request": chat(t), "response": "redacted-by-litellm"}),
    "a batch line": lambda t: encoded(
        {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": chat(t)}
    ),
    "a request as a string": lambda t: encoded({"request": json.dumps(chat(t))}),
    "turns as a string": lambda t: encoded({"id": "m", "messages": json.dumps([{"role": "user", "content": t}])}),
    "turns by themselves": lambda t: encoded([{"role": "user", "content": t}]),
    "stream and tools empty": lambda t: encoded(chat(t, stream=True, tools=[], tool_choice=None)),
}

NOT_WHOLE: dict[str, tuple[str, Callable[[str], bytes]]] = {
    "long text after it": ("length", lambda t: encoded(own(f"{t}\n{LONG}"))),
    "long text before it": ("length", lambda t: encoded(own(f"{LONG}\n{t}"))),
    "long text around it": ("length", lambda t: encoded(own(f"{LONG}\n{t}\n{LONG}"))),
    "long turns after it": (
        "length",
        lambda t: encoded(
            {"messages": [{"role": "user", "content": t}, *[{"role": "user", "content": LONG[:900]}] * 4]}
        ),
    ),
    "role of 100,000 characters": ("length", lambda t: encoded(turn(t, role="u" * 100_000))),
    "response that is an object": ("media", lambda t: encoded(own(t, response={"a": 1}))),
    "an image after it": (
        "media",
        lambda t: encoded(turn([{"type": "text", "text": t}, {"type": "image_url", "image_url": {"url": "data:"}}])),
    ),
    "audio after it": (
        "media",
        lambda t: encoded(turn([{"type": "text", "text": t}, {"type": "input_audio", "input_audio": {"data": "AA"}}])),
    ),
    "prompt beside messages": ("beside", lambda t: encoded(own("Good morning.", **turn(t)))),
    "a field twice in other case": (
        "duplicate",
        lambda t: b'{"id":"m","messages":[{"role":"user","content":"Good morning.","Content":"%s"}]}' % t.encode(),
    ),
    "a field twice": ("duplicate", lambda t: b'{"id":"m","prompt":"%s","prompt":"Good morning."}' % t.encode()),
}
