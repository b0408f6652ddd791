"""The settings of stale probes (`monitor.settings.Settings` has them): what a worker does with one.

Contract: a probe is stale when its calibration is old, or when its traffic has not been what it was calibrated on for
days. `monitor.service.stale` looks.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings


class StaleSettings(BaseSettings):
    """Part of all settings."""

    stale_probe: Literal["ignore", "warn", "refuse"] = Field(
        "warn",
        description="at the start, with a probe whose calibration is old or whose traffic has drifted for long: "
        "nothing, a line in the log, or no start (docs/alerts.md)",
    )
    stale_calibration_days: int = Field(180, ge=1, description="a calibration is stale when it is older")
    # The rule looks back for two weeks, and the drift must have begun within them.
    stale_drift_days: int = Field(
        7, ge=1, le=13, description="a probe is stale when the rule tail_drift has been in breach for longer"
    )
