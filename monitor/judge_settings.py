"""The settings of the judge (`monitor.settings.Settings` has them): whom awry asks about messages in the uncertain
band, how much of a message it sends, and what that may cost.

Contract: without `judge_url` and `judge_command` nobody is asked. Values are checked here as far as they can be without
the probes: text is sent over https, or within this machine, unless `judge_allow_http` says otherwise.
"""

from __future__ import annotations

import ipaddress
import math
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings


class JudgeSettings(BaseSettings):
    """Part of all settings."""

    judge_allow_http: bool = Field(
        False, description="allow a judge_url with http that is not on this machine: text then travels in the clear"
    )
    judge_url: str | None = Field(
        None,
        description="OpenAI-compatible endpoint that is asked about messages in the uncertain band, such as "
        "https://HOST/v1: their text is sent there (docs/judge.md); default: nobody is asked",
    )
    judge_model: str | None = Field(
        None, min_length=1, validate_default=True, description="the model's name at that endpoint"
    )
    judge_api_key: SecretStr | None = Field(None, description="sent to the endpoint as a bearer token")
    judge_command: tuple[str, ...] = Field(
        (),
        description="instead of an endpoint: a program and its arguments, started for each question without a shell",
    )
    judge_request: dict[str, Any] = Field(
        {}, description="fields of the request to the endpoint; null takes one of awry's own away"
    )
    judge_probes: tuple[str, ...] = Field(
        (), description="probes whose uncertain messages are asked about; default: all that are not in shadow"
    )
    judge_questions: dict[str, str] = Field(
        {}, description="the question by probe, to be answered with yes for harmful; default: one about harm"
    )
    judge_budget_per_day: int = Field(
        1000,
        ge=1,
        description="questions in any 24 hours, at most, of all workers; it sizes the band, in equal parts by probe",
    )
    judge_tokens_per_day: int = Field(
        5_000_000, ge=1, description="tokens that a worker's questions and answers take in any 24 hours, at most"
    )
    judge_bands: dict[str, tuple[float, float]] = Field(
        {}, description="by probe: the lowest and the highest score that is asked about, instead of a sized band"
    )
    judge_seconds: float = Field(20.0, gt=0, le=600, description="time limit of one question, or of one command")
    judge_wait_seconds: float = Field(
        300.0, gt=0, le=3600, description="a message that waits longer, with retries, is not asked about"
    )
    judge_threads: int = Field(2, ge=1, le=64, description="questions at once")
    judge_queue_messages: int = Field(
        512, ge=1, le=100_000, description="messages that wait in memory; with a full queue no more are asked about"
    )
    judge_max_characters: int = Field(
        12_000, ge=200, description="characters of a message that are sent: half from its begin, half from its end"
    )
    judge_mask_secrets: bool = Field(
        True, description="replace keys, tokens and passwords of the usual forms before text is sent"
    )

    @field_validator("judge_url")
    @classmethod
    def _address(cls, value: str | None, info: Any) -> str | None:
        return None if value is None else check_url(value, allow_http=bool(info.data.get("judge_allow_http")))

    @field_validator("judge_model")
    @classmethod
    def _endpoint_has_a_model(cls, value: str | None, info: Any) -> str | None:
        if value is None and info.data.get("judge_url") is not None:
            raise ValueError("is missing: judge_url needs the model's name there")
        return value

    @field_validator("judge_command")
    @classmethod
    def _one_judge(cls, value: tuple[str, ...], info: Any) -> tuple[str, ...]:
        if value and info.data.get("judge_url") is not None:
            raise ValueError("judge_url is set as well; there is one judge")
        if value and not value[0]:
            raise ValueError("must begin with a program")
        return value

    @field_validator("judge_bands")
    @classmethod
    def _bands_have_an_inside(cls, value: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
        for probe, (low, high) in value.items():
            if not (math.isfinite(low) and math.isfinite(high) and low <= high):
                raise ValueError(f"{probe}: must be two numbers, the lower one first")
        return value

    @field_validator("judge_questions")
    @classmethod
    def _questions_ask(cls, value: dict[str, str]) -> dict[str, str]:
        for probe, question in value.items():
            if not 0 < len(question.strip()) <= 2000:
                raise ValueError(f"{probe}: must be a question of 1 to 2000 characters")
        return value

    @field_validator("judge_wait_seconds")
    @classmethod
    def _waits_for_an_answer(cls, value: float, info: Any) -> float:
        if value < info.data.get("judge_seconds", 0):
            raise ValueError("must not be below judge_seconds")
        return value

    @field_validator("judge_request")
    @classmethod
    def _awry_asks(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in ("messages", "stream", "n", "model"):
            if name in value:
                raise ValueError(f"{name}: cannot be changed")
        return value


def check_url(url: str, *, allow_http: bool) -> str:
    """The URL itself; ValueError where text must not be sent to it."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError("is no URL; write https://HOST[:PORT]/v1") from None
    if parts.scheme not in ("https", "http") or not parts.hostname or port == 0:
        raise ValueError("is no address of an endpoint; write https://HOST[:PORT]/v1")
    if "@" in parts.netloc:
        raise ValueError("holds a user or a password; give the key as judge_api_key")
    if parts.query or parts.fragment:
        raise ValueError("must end with its path; write https://HOST[:PORT]/v1")
    if parts.scheme == "http" and not allow_http and not _is_loopback(parts.hostname):
        raise ValueError(
            "http sends the text of messages in the clear; write https://, or set judge_allow_http where the network "
            "is trusted"
        )
    return url


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
