"""The model of a rule: from scores, rates and the monitor's own state to an alert's dedup key and severity.

Contract: three kinds. A threshold rule is evaluated on each flagged score, or on what the turns of a conversation say
together where its `measure` is one of those, in the worker's own transaction. A rate rule
counts flagged messages of one tenant, model or conversation in a window; a monitor rule measures awry itself; both are
evaluated by `alerts.evaluator` from the tables. Each rule has one live alert for each dedup key, which is readable on
purpose: it is what a pager shows. Scores are in class gaps; a score that its probe did not flag is seen only by rules
on another measure, whose `threshold` is their own.

A rule is in breach while its value is above `limit`, and clear again at or under `clear_limit`; in between it stays as
it was. `Rules()` is one threshold rule; `built_in`, the rules without a file, are that one and four on the monitor.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from alerts.routing.matchers import labels_of
from alerts.rules.checks import LIMITS, UNITS, WINDOWS, Check
from alerts.rules.durations import parse_duration
from alerts.rules.exceptions import RuleException, excepted
from alerts.rules.flagged import UNITS as MEASURED_IN
from alerts.rules.flagged import Conversation as Conversation
from alerts.rules.flagged import Flagged as Flagged
from alerts.rules.flagged import Measure
from alerts.rules.keys import dedup_key
from alerts.rules.patterns import ANY, matches
from alerts.rules.references import ID, References, Tags

Severity = Literal["warning", "error", "critical"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
Part = Literal["tenant", "model", "conversation"]
Count = Literal["messages", "conversations"]

# The longest window of tail_drift.
_LONGEST_WINDOW = timedelta(days=28)
# A notification is held no longer for a judge: delivery takes what is due later for the sign of a clock set back.
MAX_HOLD = timedelta(seconds=25)


def _bands(written: object) -> object:
    """One severity, or the value from which each applies, most severe last."""
    if isinstance(written, str):
        return ((written, None),)
    if isinstance(written, dict):
        unknown = set(written) - set(SEVERITIES)
        if unknown or not written:
            raise ValueError(f"give values for some of {', '.join(SEVERITIES)}, or one of them as text")
        bands = [(name, written[name]) for name in SEVERITIES if name in written]
        if any(isinstance(v, bool) or not isinstance(v, int | float) for _, v in bands):
            raise ValueError("each severity needs a number: the value from which it holds")
        if sorted(v for _, v in bands) != [v for _, v in bands]:
            raise ValueError("a higher severity must not begin at a smaller value")
        return tuple(bands)
    return written


def _patterns(written: object) -> object:
    patterns = (written,) if isinstance(written, str) else written
    if not isinstance(patterns, list | tuple) or not patterns or not all(isinstance(p, str) and p for p in patterns):
        raise ValueError("write a name, a pattern with *, or a list of them")
    return tuple(patterns)


def _duration(written: object) -> object:
    return written if isinstance(written, timedelta) else parse_duration(written)


def _list(written: object) -> object:
    return (written,) if isinstance(written, str) else written


Bands = Annotated[tuple[tuple[Severity, float | None], ...], BeforeValidator(_bands)]
Patterns = Annotated[tuple[str, ...], BeforeValidator(_patterns)]
Duration = Annotated[timedelta, BeforeValidator(_duration)]
Parts = Annotated[tuple[Part, ...], BeforeValidator(_list)]


class _Rule(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_by_name=True, allow_inf_nan=False)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,40}$")
    # What a SIEM knows the rule by, whatever it is called: a UUID or a short text; and what to read about it.
    id: str | None = Field(None, pattern=ID)
    tags: Tags = ()
    references: References = ()
    severity: Bands = (("error", None),)
    shadow: bool = False
    # An alert of the same key that was resolved so recently is reopened, instead of opening a new one.
    reopen_within: Duration = timedelta()
    # Those of its file, which `Rules` hands on.
    _exceptions: tuple[RuleException, ...] = PrivateAttr(())

    @property
    def limit(self) -> float:
        """In breach above this."""
        raise NotImplementedError

    def grade(self, value: float) -> Severity:
        """The severity of a value; the least severe applies from the limit on."""
        reached = [name for name, least in self.severity if least is None or value >= least]
        return reached[-1] if reached else self.severity[0][0]

    @model_validator(mode="after")
    def _bands_begin_at_the_limit(self) -> Any:
        # The default bands are not checked: a value above the limit gets its severity by them.
        written = self.severity if "severity" in self.model_fields_set else ()
        low = [name for name, least in written if least is not None and least < self.limit]
        if low:
            raise ValueError(f"severity.{low[0]}: begins below the rule's own limit of {self.limit:g}")
        return self


class ThresholdRule(_Rule):
    """On single messages: `above` and the bands are class gaps over the probe's own threshold, or over the rule's
    `threshold` where it measures something else than the score."""

    name: str = Field("threshold", pattern=r"^[a-z0-9][a-z0-9_-]{0,40}$")
    probe: Patterns = (ANY,)
    tenant: Patterns = (ANY,)
    model: Patterns = (ANY,)
    per: Parts = ("tenant", "model")
    measure: Measure = "score"
    threshold: float | None = None
    # A message whose turn with the highest value is history, which came before, is passed over.
    new_turns_only: bool = False
    above: float = Field(0.0, ge=0)
    severity: Bands = (("warning", 0.0), ("error", 0.5), ("critical", 1.0))
    # Resolved automatically after so long without a message.
    resolve_after: Duration | None = None
    # A message of a conversation that an alert of the key has, which was resolved so recently, counts there, unless it
    # is more severe than that conversation was: its next turn has the same history.
    repeat_within: Duration = timedelta(hours=24)
    # An alert all of whose messages a judge called harmless is resolved; its first notification may wait for that.
    judge_resolves: bool = False
    judge_holds: Duration = timedelta()

    @model_validator(mode="after")
    def _has_the_threshold_of_its_measure(self) -> ThresholdRule:
        if self.measure == "score" and self.threshold is not None:
            raise ValueError("threshold: the score has its probe's; write above, or choose another measure")
        if self.measure != "score" and self.threshold is None:
            raise ValueError(f"threshold: is missing; measure {self.measure} needs one, in class gaps")
        if self.measure != "score" and self.judge_resolves:
            raise ValueError(f"judge_resolves: a judge is asked about scores; measure is {self.measure}")
        return self

    @model_validator(mode="after")
    def _holds_what_may_be_resolved(self) -> ThresholdRule:
        if self.judge_holds and not self.judge_resolves:
            raise ValueError("judge_holds: needs judge_resolves: nothing else would come of the wait")
        if self.judge_holds > MAX_HOLD:
            raise ValueError(f"judge_holds: at most {MAX_HOLD.total_seconds():g}s")
        return self

    @property
    def limit(self) -> float:
        return self.above

    @property
    def units(self) -> str:
        return MEASURED_IN[self.measure]

    def value_of(self, flagged: Flagged) -> float:
        """What the rule measures of a score that it applies to."""
        value = flagged.value(self.measure)
        return flagged.score if value is None else value

    def threshold_of(self, flagged: Flagged) -> float:
        """What that value is compared with."""
        return flagged.threshold if self.threshold is None else self.threshold

    def matches(self, flagged: Flagged) -> bool:
        """Whether the rule applies to this score, and no exception does."""
        return self._applies(flagged) and not excepted(self._exceptions, self._alert_labels(flagged))

    def excepts(self, flagged: Flagged) -> bool:
        """Whether the rule would apply, but for an exception."""
        return bool(self._exceptions) and self._applies(flagged) and not self.matches(flagged)

    def _alert_labels(self, flagged: Flagged) -> dict[str, str]:
        """The labels that an exception looks at, those that the alert does not have among them."""
        if not self._exceptions:
            return {}
        names = {"rule": self.name, "kind": "threshold", "severity": self.severity_of(flagged), "probe": flagged.probe}
        more = {"tenant": flagged.tenant, "model": flagged.model, "conversation_id": flagged.conversation_id}
        return labels_of(names | more)

    def _applies(self, flagged: Flagged) -> bool:
        value = flagged.value(self.measure)
        if value is None or (self.new_turns_only and flagged.turn_new is False):
            return False
        # Of a score its own flag decides: the default must not depend on rounding, and a judge may have raised it.
        passed = flagged.flagged if self.measure == "score" else value > self.threshold_of(flagged)
        high = passed and (self.above == 0 or value - self.threshold_of(flagged) > self.above)
        names = ((self.probe, flagged.probe), (self.tenant, flagged.tenant), (self.model, flagged.model))
        return high and all(matches(patterns, name) for patterns, name in names)

    def severity_of(self, flagged: Flagged) -> Severity:
        return self.grade(self.value_of(flagged) - self.threshold_of(flagged))

    def dedup_key(self, flagged: Flagged) -> str:
        """Of the alert that this score opens or counts for."""
        labels = self.labels_of(flagged)
        return dedup_key(self.name, flagged.probe, [labels[part] for part in self.per])

    @staticmethod
    def labels_of(flagged: Flagged) -> dict[Part, str | None]:
        """What `per` chooses from."""
        return {"tenant": flagged.tenant, "model": flagged.model, "conversation": flagged.conversation_id}


class _ConditionRule(_Rule):
    """What rate and monitor rules share: a condition that must hold for a time, and be gone for a time."""

    for_: Duration = Field(timedelta(), alias="for")
    clear_at: float | None = None
    clear_for: Duration = timedelta(minutes=5)
    reopen_within: Duration = timedelta(hours=1)

    def excepted(self, subject: Mapping[str, str | None], severity: str) -> bool:
        """Whether an exception holds for an alert on this subject."""
        kind = "rate" if isinstance(self, RateRule) else "monitor"
        named = {"rule": self.name, "kind": kind, "severity": severity, **subject}
        return excepted(self._exceptions, labels_of(named))

    @property
    def clear_limit(self) -> float:
        """Clear again at or under this."""
        return self.limit if self.clear_at is None else self.clear_at

    @model_validator(mode="after")
    def _clears_below_the_limit(self) -> Any:
        if self.clear_at is not None and self.clear_at > self.limit:
            raise ValueError(f"clear_at: {self.clear_at:g} is over the limit of {self.limit:g}: it would never be open")
        return self


class RateRule(_ConditionRule):
    """At least `flagged` flagged ones, of one probe and of one of each `per`, in `window`; where `of` is given, among
    the last `of` scored ones of it. Conversations are counted, or messages, as `counted` says."""

    probe: Patterns = (ANY,)
    tenant: Patterns = (ANY,)
    model: Patterns = (ANY,)
    per: Parts = ("tenant",)
    flagged: int = Field(ge=1)
    of: int | None = Field(None, ge=1, le=100_000)
    window: Duration
    count: Count | None = None

    @property
    def limit(self) -> float:
        return self.flagged - 1

    @property
    def counted(self) -> Count:
        """`conversations`: messages of one conversation are one, flagged if any of them is; a message without a
        conversation is one of its own. `messages` where none is chosen and the rule is on single conversations."""
        return self.count or ("messages" if "conversation" in self.per else "conversations")

    @property
    def units(self) -> str:
        return f"flagged {self.counted}"

    @field_validator("window")
    @classmethod
    def _within_a_week(cls, value: timedelta) -> timedelta:
        return _window(value)

    @model_validator(mode="after")
    def _can_be_reached(self) -> RateRule:
        if self.of is not None and self.of < self.flagged:
            raise ValueError(f"of: {self.flagged} flagged of {self.of} {self.counted} cannot be")
        if self.counted == "conversations" and "conversation" in self.per and self.flagged > 1:
            raise ValueError("count: a rule per conversation sees one conversation; leave count out, or count messages")
        return self


class MonitorRule(_ConditionRule):
    """On awry itself: `check` says what is measured (`UNITS`), over `window` where it counts something."""

    check: Check
    above: float | None = Field(None, ge=0)
    window: Duration = timedelta(minutes=15)
    # Drift and stale probes: of which probes; drift: the scores that it takes.
    probe: Patterns = (ANY,)
    at_least: int = Field(200, ge=20)
    # tail_drift: how many of the largest tenants are tested by themselves, and the factor of a tail that is no drift.
    tenants: int = Field(20, ge=0, le=100)
    tolerance: float = Field(1.25, ge=1, le=10)

    @property
    def limit(self) -> float:
        if self.above is not None:
            return self.above
        return LIMITS.get(self.check, self.window.total_seconds())

    @property
    def units(self) -> str:
        return UNITS[self.check]

    @model_validator(mode="before")
    @classmethod
    def _window_of_the_check(cls, written: Any) -> Any:
        windows: dict[Any, timedelta] = dict(WINDOWS)
        check = written.get("check") if isinstance(written, dict) else None
        return {"window": windows[check], **written} if isinstance(check, str) and check in windows else written

    @field_validator("window")
    @classmethod
    def _as_the_check_needs(cls, value: timedelta, info: ValidationInfo) -> timedelta:
        if info.data.get("check") != "tail_drift":
            return _window(value)
        if not timedelta(days=1) <= value <= _LONGEST_WINDOW or value % timedelta(hours=1):
            raise ValueError("must be whole hours, from 1d to 28d")
        return value

    @model_validator(mode="after")
    def _silence_is_measured_by_the_window(self) -> MonitorRule:
        if self.above is not None and self.check not in LIMITS:
            raise ValueError(f"above: {self.check} has none; its window says how long the silence may be")
        return self


class Rules(BaseModel):
    """All rules, by kind; names differ."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    threshold: tuple[ThresholdRule, ...] = (ThresholdRule(),)
    rate: tuple[RateRule, ...] = ()
    monitor: tuple[MonitorRule, ...] = ()
    exception: tuple[RuleException, ...] = ()

    @model_validator(mode="after")
    def _exceptions_of_rules(self) -> Rules:
        if self.exception:
            for rule in self.all:
                rule._exceptions = self.exception
        return self

    @property
    def all(self) -> tuple[ThresholdRule | RateRule | MonitorRule, ...]:
        return (*self.threshold, *self.rate, *self.monitor)


def max_severity(a: str, b: str) -> str:
    """The higher of two severities."""
    return max(a, b, key=SEVERITIES.index)


def _window(value: timedelta) -> timedelta:
    if not timedelta(seconds=1) <= value <= timedelta(days=7):
        raise ValueError("must be from 1s to 7d")
    return value
