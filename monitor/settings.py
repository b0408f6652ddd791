"""Settings: environment `AWRY_*`, `awry.toml`, flags; flags win, then the environment, then the file.

Contract: `load_settings(**flags)` gives valid settings or a SettingsError that names the setting. Field descriptions
are the reference: the table of docs/settings.md is generated from them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from alerts.links import check_template
from alerts.truth_values import check_truth_value
from monitor import setting_sources as sources
from monitor.access_settings import AccessSettings
from monitor.engine_settings import EngineSettings
from monitor.errors import SettingsError
from monitor.judge_settings import JudgeSettings
from monitor.reading_settings import ReadingSettings
from monitor.routing_settings import RoutingSettings
from monitor.score_settings import ScoreSettings
from monitor.service_links import is_service_link
from monitor.stale_settings import StaleSettings


def default_state_dir() -> Path:
    """/var/lib/awry for root (its embedded server runs as another user), else the user's state folder."""
    if os.geteuid() == 0:
        return Path("/var/lib/awry")
    import platformdirs

    return Path(platformdirs.user_state_dir("awry"))


class Settings(
    ReadingSettings, StaleSettings, JudgeSettings, RoutingSettings, AccessSettings, ScoreSettings, EngineSettings
):
    """All settings of the worker and the outbox loop."""

    model_config = SettingsConfigDict(env_prefix="AWRY_", extra="forbid", frozen=True)

    state_dir: Path = Field(default_factory=default_state_dir, description="models, caches and the embedded database")
    database_url: SecretStr | None = Field(
        None, description="postgresql://...; when absent, an embedded PostgreSQL starts in the state folder"
    )
    read_database_url: SecretStr | None = Field(
        None, description="a read replica of that database, for what awry serve only reads (docs/postgresql.md)"
    )
    model: str = Field(
        "SmolLM2-135M-Instruct",
        description="built-in name, folder of a checkpoint, GGUF file, or hub id of the model to run",
    )
    adapter: str | None = Field(None, description="PEFT adapter: a shipped one's name, or a folder")
    scale: float | None = Field(
        None, ge=0, le=4, description="strength of the adapter; default: its manifest's scale, else 1"
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="auto: float32 on a CPU, bfloat16 on an accelerator"
    )
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, ...")
    device_map: str | None = Field(
        None,
        description="several devices, in place of device: auto, balanced, sequential, or a JSON object of modules and "
        "devices, as transformers takes it (docs/loading.md)",
    )
    quantization: Literal["bitsandbytes-4bit", "bitsandbytes-8bit", "fp8"] | None = Field(
        None, description="quantise the weights as they are loaded; a quantised checkpoint needs no setting"
    )
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
    priority_tenants: tuple[str, ...] = Field(
        (),
        description="tenants whose messages are taken first of those that were read ahead (three of four, while others "
        "wait too), and are never sampled out",
    )
    sample_after_seconds: float | None = Field(
        None,
        gt=0,
        description="of messages that have waited longer than this, only `sample_share` is scored; the others are "
        "stored as skipped, with the reason; unset: all are scored, however late",
    )
    sample_share: float = Field(0.1, ge=0, le=1, description="share that is scored of messages that waited too long")
    batch_messages: int | None = Field(
        None, ge=1, le=4096, description="messages a transaction, at most; unset: 64 on a CPU, 512 on an accelerator"
    )
    batch_wait_seconds: float = Field(
        0.0,
        ge=0,
        le=60,
        description="how long messages of Kafka wait for others once the first is there, although the model is free",
    )
    token_budget: int | None = Field(
        None,
        ge=16,
        description="tokens a forward pass, padding counted; unset: 2048 on a CPU, 16384 on an accelerator",
    )
    reuse_mb: int = Field(
        512,
        ge=0,
        description="MiB kept of messages' beginnings, which are not read again; 0 keeps none",
    )
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
    chat_template: Path | None = Field(
        None,
        description="file with the chat template (Jinja) that the model is served with, as vLLM's --chat-template; "
        "default: the tokenizer's own",
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

    @field_validator("*", mode="before")
    @classmethod
    def _no_number_for_a_truth_value(cls, value: Any, info: Any) -> Any:
        return check_truth_value(value, cls.model_fields[info.field_name].annotation)

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
        del env_settings, dotenv_settings, file_secret_settings
        return (init_settings, _Gathered(settings_cls))


class _Gathered(PydanticBaseSettingsSource):
    """What the environment and the files give, which is read by `monitor.setting_sources`."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        raise NotImplementedError  # asked for by the base class; __call__ does the work

    def __call__(self) -> dict[str, Any]:
        given = gathered({})
        if given.faults:
            raise SettingsError("\n".join(fault.with_fix for fault in given.faults))
        return given.values


def gathered(flags: Mapping[str, Any], file: Path | None = None) -> sources.Gathered:
    """What is given for the settings, place by place; `file` stands for the one that AWRY_CONFIG names."""
    return sources.gather(Settings, SECRETS, flags, file)


def load_settings(**flags: Any) -> Settings:
    """Settings with `flags` (None means not given) on top. Raises SettingsError naming each setting and its place."""
    given = {name: value for name, value in flags.items() if value is not None}
    faults = [unknown_variable(name).with_fix for name in unknown_variables()]
    try:
        settings = Settings(**given)
    except ValidationError as error:
        faults += [fault.with_fix for fault in sources.faults_of(error, gathered(given), Settings.model_fields)]
    except SettingsError as error:
        faults.append(str(error))
    else:
        if not faults:
            return settings
    raise SettingsError("\n".join(faults))


# Settings that AWRY_<NAME>_FILE may hold.
SECRETS = (
    *("database_url", "read_database_url", "kafka_sasl_password", "kafka_ssl_key_password"),
    *("judge_api_key", "oidc_client_secret", "destinations"),
)

# Of a vLLM server with awry's connector (deploy/vllm/serve.sh), which may share its environment with awry's commands.
_OF_SERVERS = ("AWRY_CONNECTOR", "AWRY_TRUSTED_HEADERS", "AWRY_GATEWAY_KEY", "AWRY_READINGS_KEY")


def unknown_variables() -> list[str]:
    """Variables of the environment that are named like settings and are none, Kubernetes' service links left out."""
    known = _known_variables()
    return sorted(
        name
        for name, value in os.environ.items()
        if name.startswith("AWRY_") and name not in known and not is_service_link(name, value)
    )


def unknown_variable(name: str) -> sources.Fault:
    """The fault of such a variable."""
    return sources.no_such_setting(name, _known_variables(), sources.Place("environment", name))


def _known_variables() -> set[str]:
    own = {sources.variable(name) for name in Settings.model_fields} | {sources.file_variable(name) for name in SECRETS}
    return own | {sources.CONFIG_VARIABLE, *_OF_SERVERS}


def reference() -> list[tuple[str, str, str, str]]:
    """(name, environment variable, default, description) of every setting."""
    rows = []
    # Those of the modules of their own come last.
    parts = (ReadingSettings, StaleSettings, JudgeSettings, RoutingSettings, AccessSettings, EngineSettings)
    inherited = {name for part in parts for name in part.model_fields}
    fields = sorted(Settings.model_fields.items(), key=lambda field: field[0] in inherited)
    for name, field in fields:
        if name == "state_dir":
            default = "the user's state folder"
        elif name == "destinations":
            default = "console"
        else:
            value = field.get_default(call_default_factory=True)
            default = "" if value in (None, (), {}) else str(value)
        also = f" (also a file: `{sources.file_variable(name)}`)" if name in SECRETS else ""
        rows.append((name, sources.variable(name), default, (field.description or "") + also))
    return rows
