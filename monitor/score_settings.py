"""The settings of `awry score-server` (`monitor.settings.Settings` has them)."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings


class ScoreSettings(BaseSettings):
    """Part of all settings."""

    score_listen: str = Field(
        "127.0.0.1:9467",
        description="HOST:PORT of awry score-server, with its /metrics, /healthz and /readyz",
    )
    score_max_waiting: int = Field(
        256,
        ge=1,
        le=100_000,
        description="messages that wait for awry score-server's model; one more is refused with 503",
    )
    score_seconds: float = Field(
        10.0, gt=0, le=300, description="a message that is not scored within this time is answered with 503"
    )
    score_store: bool = Field(
        False,
        description="awry score-server also writes what it is sent to Kafka or the spool, as awry ingest does, so that "
        "the workers score and store it; default: nothing is stored",
    )
