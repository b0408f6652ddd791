"""The connector's settings, as they stand in `kv_connector_extra_config` of vLLM's `--kv-transfer-config`.

Contract: `ConnectorSettings.read(given)` checks all of it and raises VllmSettingsError, which names the field and what
it may be. Nothing that a request brings along changes any of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from probes.errors import ProbesError


class VllmSettingsError(ProbesError):
    """A setting of the connector is wrong, or the server is run in a way that it cannot read."""


class ConnectorSettings(BaseModel):
    """`probes`: names of shipped probes, or paths of cards. `readings`: where readings go, `kafka:TOPIC` or a file;
    `memory` keeps them in the process. `kafka`: awry's settings `kafka_*` by their names without that (`bootstrap`);
    `wait_for_broker`: begin although no broker answers. `queue`: readings that wait at most; what is more is counted.

    `partial_every`: a reading of an answer that still runs, at every so many of its tokens; 0: none. `tenant` and
    `user` stand in every reading, as verified. `chat_template`: the file that the server was given, where it was.
    `adapters`: of a LoRA that is served from a copy, by its served name, the folder or the shipped adapter it is of.
    `other_dtype`: read with probes that were made in another dtype than the server's.
    `response_ends_early`: read probes of an answer's last token at the token before.
    `state`: where digests of files are kept, so that a start does not read all weights again.
    `steer`: off; `asked`: for requests that ask for it; `flagged`: also where a probe's score of the prompt is above
    its threshold. `steer_with` names the probe whose recipe it is, else the first that has one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    probes: tuple[str, ...] = Field(min_length=1)
    readings: str = Field(min_length=1)
    kafka: dict[str, Any] = {}
    partial_every: int = Field(0, ge=0)
    tenant: str | None = None
    user: str | None = None
    chat_template: str | None = None
    adapters: dict[str, str] = {}
    state: str = "~/.cache/awry"
    steer: Literal["off", "asked", "flagged"] = "off"
    steer_with: str | None = None
    other_dtype: bool = False
    response_ends_early: bool = False
    wait_for_broker: bool = False
    queue: int = Field(10_000, ge=1)
    heartbeat_seconds: float = Field(10.0, gt=0)

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> ConnectorSettings:
        """See the module."""
        try:
            return cls.model_validate(dict(given))
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            field = ".".join(map(str, first["loc"])) or "settings"
            raise VllmSettingsError(f"kv_connector_extra_config: {field}: {first['msg']}") from None
