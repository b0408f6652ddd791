"""Settings: environment `AWRY_*`, `awry.toml`, flags; flags win, then the environment, then the file.

Contract: `load_settings(**flags)` gives valid settings or a SettingsError that names the setting. Field descriptions
are the reference: the table of docs/settings.md is generated from them.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from pydantic_settings import (
    SettingsError as SourceSettingsError,
)

from alerts.destinations import Destination
from alerts.links import check_template
from monitor.errors import SettingsError
from monitor.judge_settings import JudgeSettings
from monitor.stale_settings import StaleSettings

CONFIG_VARIABLE = "AWRY_CONFIG"


def default_state_dir() -> Path:
    """/var/lib/awry for root (its embedded server runs as another user), else the user's state folder."""
    if os.geteuid() == 0:
        return Path("/var/lib/awry")
    import platformdirs

    return Path(platformdirs.user_state_dir("awry"))


class Settings(StaleSettings, JudgeSettings):
    """All settings of the worker and the outbox loop."""

    model_config = SettingsConfigDict(env_prefix="AWRY_", extra="forbid", frozen=True)

    state_dir: Path = Field(default_factory=default_state_dir, description="models, caches and the embedded database")
    database_url: SecretStr | None = Field(
        None, description="postgresql://...; when absent, an embedded PostgreSQL starts in the state folder"
    )
    model: str = Field(
        "SmolLM2-135M-Instruct",
        description="built-in name, folder of a checkpoint, or hub id of the model to run",
    )
    adapter: str | None = Field(None, description="PEFT adapter: a shipped one's name, or a folder")
    scale: float | None = Field(
        None, ge=0, le=4, description="strength of the adapter; default: its manifest's scale, else 1"
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="auto: float32 on a CPU, bfloat16 on an accelerator"
    )
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, ...")
    attention: str | None = Field(None, description="attention implementation: sdpa, eager, ...; default: the model's")
    trust_remote_code: bool = Field(False, description="let a model's repository run its own code")
    probes: tuple[str, ...] = Field(
        (),
        description="probe names or card paths; default: every shipped probe made for this model and adapter",
    )
    shadow: tuple[str, ...] = Field((), description="probes that score and store, but open no alert")
    source: str = Field(
        "-",
        description="kafka:TOPIC[,TOPIC]; spool (what awry ingest wrote); or JSON lines: FILE[,FILE], patterns like "
        "logs/*.jsonl, or - for standard input",
    )
    source_name: str | None = Field(
        None, description="JSON lines: name in the coordinates, of all files; default: each file's name, or stdin"
    )
    follow: bool = Field(
        False, description="keep reading as files grow, through rotation, and pick up new files that match"
    )
    kafka_bootstrap: str | None = Field(
        None,
        description="HOST:PORT[,HOST:PORT] of the brokers; default: the embedded one that awry kafka runs in the state "
        "folder",
    )
    kafka_group: str = Field("awry", min_length=1, description="consumer group; its members share the partitions")
    start_from: str | None = Field(
        None, description="where a group without offsets starts: earliest, latest or a time; without it awry exits"
    )
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="protocol of the brokers' listener"
    )
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = Field(
        None, description="SASL mechanism of the login"
    )
    kafka_sasl_username: str | None = Field(None, description="user name of the login")
    kafka_sasl_password: SecretStr | None = Field(None, description="password of the login")
    kafka_ssl_ca_file: Path | None = Field(None, description="CA certificates that brokers are verified with (PEM)")
    kafka_ssl_cert_file: Path | None = Field(None, description="client certificate (PEM)")
    kafka_ssl_key_file: Path | None = Field(None, description="its private key (PEM)")
    kafka_ssl_key_password: SecretStr | None = Field(None, description="the key's password")
    revoke_seconds: float = Field(
        20.0, ge=0, le=240, description="how long a revoked partition waits for the batch in progress"
    )
    stall_seconds: float = Field(
        900.0, gt=0, description="after so long without a finished batch a worker is unhealthy and leaves the group"
    )
    prefetch_messages: int = Field(2048, ge=1, description="messages read ahead of the model, at most")
    batch_messages: int = Field(64, ge=1, le=4096, description="messages a transaction, at most")
    batch_wait_seconds: float = Field(1.0, ge=0, le=60, description="how long a batch waits to fill up")
    token_budget: int = Field(2048, ge=16, description="tokens a forward pass, padding counted")
    max_tokens: int = Field(2048, ge=32, description="tokens of a message that are read")
    over_long: Literal["truncate_left", "skip"] = Field(
        "truncate_left",
        description="what happens to longer ones: the last tokens are scored, with windows of the whole beside; or "
        "they are skipped",
    )
    max_windows: int = Field(8, ge=0, le=64, description="windows of max_tokens that an over-long message is read in")
    special_tokens: Literal["as_tokens", "as_text"] = Field(
        "as_tokens",
        description="what control tokens in a message's text are, as the serving stack takes them (docs/traffic.md)",
    )
    format: str = Field("auto", description="format of the messages; auto: recognised by content (docs/traffic.md)")
    mapping: dict[str, str] = Field(
        {}, description="for any other JSON: JMESPath expressions by field (docs/traffic.md)"
    )
    attribute_keys: tuple[str, ...] = Field(
        (), description="attributes that are stored beside the listed ones, whatever they hold (docs/operations.md)"
    )
    max_message_bytes: int = Field(4_194_304, ge=1024, description="messages over this are not parsed, but skipped")
    privacy: Literal["none", "sha256", "full"] = Field("sha256", description="how much of the text is stored")
    mitigate: Literal["off", "flagged", "all"] = Field(
        "off", description="generate a reply with the probe's direction removed, for these messages"
    )
    mitigate_with: str | None = Field(None, description="the probe whose recipe is used; default: the first with one")
    also_plain: bool = Field(False, description="generate the unmitigated reply beside the mitigated one")
    answers_out: str = Field(
        "answers.jsonl", description="mitigated replies: a file, - for standard output, or kafka:TOPIC"
    )
    verdicts_out: str | None = Field(
        None, description="ids, scores and the decision for every message: a file, -, or kafka:TOPIC"
    )
    dead_letters_out: str | None = Field(
        None,
        description="coordinates and reason of what could not be scored: a file, -, kafka:TOPIC, or none; default: "
        "none for JSON lines, kafka:TOPIC.dead-letters for a topic",
    )
    dead_letter_limit: float = Field(
        0.5, gt=0, le=1, description="the worker stops when more than this share of the last 1,000 messages failed"
    )
    max_new_tokens: int = Field(40, ge=1, le=4096, description="tokens of a generated reply, at most")
    error_from: float = Field(0.5, gt=0, description="class gaps over the threshold from which an alert is an error")
    critical_from: float = Field(1.0, gt=0, description="class gaps over the threshold from which it is critical")
    rules_file: Path | None = Field(
        None, description="TOML file of alert rules, instead of the built-in one and its bands (`awry rules check`)"
    )
    rules_every_seconds: float = Field(
        15.0, gt=0, le=300, description="how often awry send evaluates rate and monitor rules"
    )
    destinations: tuple[Destination, ...] = Field(
        (Destination(name="console", kind="console"),),
        description="where alerts go: a list of tables, for each kind as in docs/destinations.md",
    )
    runbook_url: str | None = Field(
        None,
        description="link to a runbook in notifications and on the web page, with fields in braces ({rule}, {probe}, "
        "{tenant}, ...)",
    )
    dashboard_url: str | None = Field(
        None, description="link to a dashboard or to awry's web page, with the same fields and {alert_id}"
    )
    send_every_seconds: float = Field(
        2.0, gt=0, le=300, description="how often awry send looks for notifications that are due"
    )
    listen: str | None = Field(
        None,
        description="HOST:PORT of /metrics, /healthz and /readyz, and of the web page of awry serve; default: "
        "127.0.0.1:9464 for awry serve and where the source is Kafka or the spool, else none",
    )
    ingest_listen: str = Field(
        "127.0.0.1:4318",
        description="HOST:PORT of awry ingest, with its /metrics, /healthz and /readyz; 4318 is OTLP's",
    )
    ingest_topic: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9._-]{1,249}$",
        description="topic that awry ingest writes to; default: the first topic of source, else llm.traffic",
    )
    ingest_max_request_bytes: int = Field(
        16_777_216, ge=1024, description="a larger request, as sent or decompressed, is refused with 413"
    )
    ingest_max_bytes: int = Field(
        134_217_728,
        ge=1_048_576,
        description="bytes of requests that awry ingest holds at once; over it requests are refused with 429",
    )
    ingest_max_connections: int = Field(
        512, ge=1, le=65_536, description="connections that awry ingest keeps open; one more is closed at once"
    )
    ingest_body_seconds: float = Field(
        10.0, gt=0, le=300, description="the whole of a request's body must arrive within this time, else 408"
    )
    ingest_ack_seconds: float = Field(
        8.0, ge=0.5, le=300, description="Kafka must acknowledge a request within this time, else 503"
    )
    ingest_token_cache_seconds: float = Field(
        900.0,
        ge=0,
        le=86_400,
        description="while PostgreSQL is away a token is accepted so long after its last look-up; 0: not at all",
    )
    spool_max_bytes: int = Field(
        1_073_741_824, ge=1_048_576, description="size of the spool that awry ingest writes to without Kafka; then 503"
    )
    logs: Literal["auto", "terminal", "json"] = Field("auto", description="auto: progress on a terminal, else JSON")

    @field_validator("critical_from")
    @classmethod
    def _bands_rise(cls, value: float, info: Any) -> float:
        if "error_from" in info.data and value < info.data["error_from"]:
            raise ValueError("must not be below error_from")
        return value

    @field_validator("ingest_max_bytes")
    @classmethod
    def _holds_a_request(cls, value: int, info: Any) -> int:
        if "ingest_max_request_bytes" in info.data and value < info.data["ingest_max_request_bytes"]:
            raise ValueError("must not be below ingest_max_request_bytes")
        return value

    @field_validator("destinations")
    @classmethod
    def _names_differ(cls, value: tuple[Destination, ...]) -> tuple[Destination, ...]:
        names = [d.name for d in value]
        if len(set(names)) != len(names):
            raise ValueError("two destinations share a name")
        return value

    @field_validator("runbook_url", "dashboard_url")
    @classmethod
    def _link(cls, value: str | None) -> str | None:
        return None if value is None else check_template(value)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        del dotenv_settings, file_secret_settings
        return (
            init_settings,
            env_settings,
            _SecretFiles(settings_cls),
            TomlConfigSettingsSource(settings_cls, config_file()),
        )


class _SecretFiles(PydanticBaseSettingsSource):
    """AWRY_<NAME>_FILE names a file that holds a secret setting, as container platforms mount them."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        raise NotImplementedError  # asked for by the base class; __call__ does the work

    def __call__(self) -> dict[str, Any]:
        values = {}
        for name in SECRETS:
            path = os.environ.get(_file_variable(name))
            if path is not None:
                try:
                    text = Path(path).read_text(encoding="utf-8").strip()
                    values[name] = json.loads(text) if name == "destinations" else text
                except json.JSONDecodeError as error:
                    raise SettingsError(
                        f"{_file_variable(name)}: {path} is not JSON (line {error.lineno}, column {error.colno})"
                    ) from None
                except (OSError, UnicodeDecodeError) as error:
                    raise SettingsError(
                        f"{_file_variable(name)}: cannot read {path} ({type(error).__name__})"
                    ) from None
        return values


def config_file() -> Path:
    """The file named by AWRY_CONFIG, else awry.toml in the current folder."""
    return Path(os.environ.get(CONFIG_VARIABLE, "awry.toml"))


def load_settings(**flags: Any) -> Settings:
    """Settings with `flags` (None means not given) on top. Raises SettingsError naming the setting."""
    path = config_file()
    if CONFIG_VARIABLE in os.environ and not path.is_file():
        raise SettingsError(f"{CONFIG_VARIABLE}: {path} does not exist")
    unknown = sorted(v for v in os.environ if v.startswith("AWRY_") and v not in _known_variables())
    if unknown:
        raise SettingsError(f"{unknown[0]}: no such setting; see awry settings")
    try:
        return Settings(**{k: v for k, v in flags.items() if v is not None})
    except ValidationError as error:
        raise SettingsError("\n".join(_explain(e) for e in error.errors(include_input=False))) from None
    except SourceSettingsError as error:
        raise SettingsError(
            f"environment: {str(error).splitlines()[0]} (lists and tables are written as JSON)"
        ) from None
    except ValueError as error:  # a TOML file that does not parse
        raise SettingsError(f"{path}: {error}") from None


# Settings that AWRY_<NAME>_FILE may hold.
SECRETS = ("database_url", "kafka_sasl_password", "kafka_ssl_key_password", "judge_api_key", "destinations")


def _file_variable(name: str) -> str:
    return f"AWRY_{name.upper()}_FILE"


def _known_variables() -> set[str]:
    own = {f"AWRY_{name.upper()}" for name in Settings.model_fields} | {_file_variable(name) for name in SECRETS}
    return own | {CONFIG_VARIABLE}


def _explain(error: Any) -> str:
    parts = [str(part) for part in error["loc"]]
    name = ".".join(parts) or "settings"
    if error["type"] == "extra_forbidden":
        return f"{name}: no such setting; see awry settings"
    return f"{name} (flag, AWRY_{parts[0].upper() if parts else '*'} or {config_file().name}): {error['msg']}"


def reference() -> list[tuple[str, str, str, str]]:
    """(name, environment variable, default, description) of every setting."""
    rows = []
    # Those of the modules of their own come last.
    inherited = {*StaleSettings.model_fields, *JudgeSettings.model_fields}
    fields = sorted(Settings.model_fields.items(), key=lambda field: field[0] in inherited)
    for name, field in fields:
        if name == "state_dir":
            default = "the user's state folder"
        elif name == "destinations":
            default = "console"
        else:
            value = field.get_default(call_default_factory=True)
            default = "" if value in (None, (), {}) else str(value)
        what = (field.description or "") + (f" (also a file: `{_file_variable(name)}`)" if name in SECRETS else "")
        rows.append((name, f"AWRY_{name.upper()}", default, what))
    return rows
