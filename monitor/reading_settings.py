"""The settings of readings that a serving engine publishes (`monitor.settings.Settings` has them)."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings


class ReadingSettings(BaseSettings):
    """Part of all settings."""

    readings: bool = Field(
        False,
        description="the source holds readings of an engine that runs the probes itself: no model is loaded "
        "(docs/readings.md)",
    )
    readings_grace_seconds: float = Field(
        60.0,
        gt=0,
        le=3600,
        description="a reading that is missing counts as lost when it has not come so long after the next one",
    )
