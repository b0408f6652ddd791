"""A judge behind an OpenAI-compatible endpoint: one chat completion a question.

Contract: `EndpointJudge(url, model, ...)` posts to URL/chat/completions and reads the first choice's content. The
answer's form is asked for (`response_format`); a server that refuses that with 400 or 422 is asked without it from then
on. `request` adds fields to a request's body, or takes some away (null). A redirect is an answer that was refused: text
goes to no other address. Errors hold a status at most, never a URL, a key or a text.

Does not know: retries, limits of cost, what is done with the verdict.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from awry.deadline import seconds_of
from monitor.judge.answer import Failure, JudgeError, Verdict, read_answer
from monitor.judge.base import Asked
from monitor.judge.connection import Answer, Connection
from monitor.judge.prompt import PROMPT_VERSION, chat_of

_PATH = "/chat/completions"
_FORM: dict[str, Any] = {
    "type": "json_schema",
    "json_schema": {
        "name": "verdict",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"harmful": {"type": "boolean"}, "confidence": {"type": "number"}},
            "required": ["harmful", "confidence"],
            "additionalProperties": False,
        },
    },
}
_ANSWER_TOKENS = 64


class EndpointJudge:
    """One model at one endpoint; each thread has a connection of its own."""

    def __init__(
        self, url: str, model: str, api_key: str | None = None, request: Mapping[str, Any] | None = None
    ) -> None:
        path = url.rstrip("/")
        self._url = path if path.endswith(_PATH) else path + _PATH
        self._model = model
        self._request = dict(request or {})
        self._headers = {"user-agent": "awry"} | ({"authorization": f"Bearer {api_key}"} if api_key else {})
        self._formed = "response_format" not in self._request
        self._own = threading.local()
        self._lock = threading.Lock()
        self._connections: list[Connection] = []

    @property
    def host(self) -> str:
        """Where text goes: host and port."""
        return urlsplit(self._url).netloc

    @property
    def name(self) -> str:
        return f"{self._model} at {self.host}"

    @property
    def key(self) -> str:
        asked = json.dumps(self._request, sort_keys=True)
        return f"{PROMPT_VERSION} {self._url} {self._model} {asked}"

    def ask(self, asked: Asked, seconds: float) -> Verdict:
        deadline = time.monotonic() + seconds
        answer = self._connection().post(self._body(asked, formed=self._formed), seconds)
        if answer.status in (400, 422) and self._formed:
            # Of the message or of the form; where it was the form, the next answer shows it.
            answer = self._connection().post(self._body(asked, formed=False), deadline - time.monotonic())
            if answer.status == 200:
                self._formed = False
        return _verdict(answer)

    def close(self) -> None:
        with self._lock:
            for connection in self._connections:
                connection.close()
            self._connections.clear()
            self._own = threading.local()

    def _body(self, asked: Asked, *, formed: bool) -> bytes:
        body: dict[str, Any] = {
            "model": self._model,
            "messages": chat_of(asked.question, asked.text),
            "temperature": 0,
            "max_tokens": _ANSWER_TOKENS,
        }
        if formed:
            body["response_format"] = _FORM
        body |= self._request
        return json.dumps({name: value for name, value in body.items() if value is not None}).encode()

    def _connection(self) -> Connection:
        found: Connection | None = getattr(self._own, "connection", None)
        if found is None:
            found = self._own.connection = Connection(self._url, self._headers)
            with self._lock:
                self._connections.append(found)
        return found


def _verdict(answer: Answer) -> Verdict:
    if answer.status != 200:
        raise _refusal(answer)
    try:
        value = json.loads(answer.body)
        choice = value["choices"][0]
        message = choice["message"]
        content, declined = message.get("content"), message.get("refusal")
        filtered = choice.get("finish_reason") == "content_filter"
    except (ValueError, RecursionError, KeyError, IndexError, TypeError, AttributeError):
        raise JudgeError("garbage") from None
    if declined or filtered:
        raise JudgeError("declined")
    return read_answer(content, _tokens(value))


def _tokens(value: Mapping[str, Any]) -> int:
    usage = value.get("usage")
    total = usage.get("total_tokens") if isinstance(usage, Mapping) else None
    return total if isinstance(total, int) and not isinstance(total, bool) and 0 <= total < 10**9 else 0


def _refusal(answer: Answer) -> JudgeError:
    if answer.status == 429:
        return JudgeError("rate limited", retry_after=seconds_of(answer.retry_after))
    if answer.status >= 500:
        return JudgeError("server error", retry_after=seconds_of(answer.retry_after))
    failure: Failure = "refused by server"
    # A server that refuses one message (a filter, its length) is not down.
    return JudgeError(failure, down=answer.status not in (400, 413, 422))
