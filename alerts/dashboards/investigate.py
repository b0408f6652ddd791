"""One message, one conversation, or what was flagged lately: every score of it, head by head, and what came of it.

The messages in question are the same in every panel (`WANTED`): the one named by its id or by its coordinates
(SOURCE/PARTITION/OFFSET), else those that the alert counted, else those of the conversation, else the latest flagged
ones of the tenants, models and probes that are chosen. Text is shown where the table has it, which is what `privacy`
allowed when it was stored.
"""

from __future__ import annotations

from alerts.dashboards.board import (
    INVESTIGATE,
    MODEL,
    PROBE,
    PROBES,
    TENANT,
    chosen,
    dashboard,
    link_to,
    of_messages,
    tenant_column,
    text_variable,
)
from alerts.dashboards.panels import BAD, PLAIN, WARN, Json, column, matrix, sql, table
from alerts.dashboards.panels import timeseries as lines

MESSAGE = text_variable("message", "Message", "The id of a message, or its coordinates as SOURCE/PARTITION/OFFSET.")
ALERT = text_variable("alert", "Alert", "The id of an alert: the messages with the highest scores that it counted.")
CONVERSATION = text_variable("conversation", "Conversation", "The id of a conversation.")

_KEY = 'm.source, m.partition, m."offset", m.payload_sha256, m.day'
_ID, _ALERT, _TALK = "${message:sqlstring}", "${alert:sqlstring}", "${conversation:sqlstring}"
# The longest numbers that fit the columns: what somebody types must not break the query.
_AT = f"""m.source = substring({_ID} from '^(.+)/[0-9]{{1,9}}/[0-9]{{1,18}}$')
            AND m.partition = substring({_ID} from '^.+/([0-9]{{1,9}})/[0-9]{{1,18}}$')::integer
            AND m."offset" = substring({_ID} from '^.+/[0-9]{{1,9}}/([0-9]{{1,18}})$')::bigint"""

_UUID = f"substring({_ALERT} from '^[0-9a-fA-F]{{8}}(?:-[0-9a-fA-F]{{4}}){{3}}-[0-9a-fA-F]{{12}}$')::uuid"

# A replay scores messages that are as old as the topic keeps them; without a bound all of a tenant's would be read.
_EARLIEST = "$__timeFrom()::timestamptz - interval '8 days'"

WANTED = f"""
    WITH wanted AS MATERIALIZED (
        (SELECT {_KEY} FROM messages AS m WHERE {_ID} <> '' AND m.message_id = {_ID} LIMIT 100)
        UNION
        (SELECT {_KEY} FROM messages AS m WHERE {_ID} <> '' AND {_AT} LIMIT 100)
        UNION
        (SELECT {_KEY} FROM alert_messages AS l JOIN messages AS m ON m.source = l.source
            AND m.partition = l.partition AND m."offset" = l."offset" AND m.day = l.day
            AND m.status IN ('scored', 'truncated')
            WHERE {_ID} = '' AND {_ALERT} <> '' AND l.alert_id = {_UUID} ORDER BY l.score DESC LIMIT 200)
        UNION
        (SELECT {_KEY} FROM messages AS m
            WHERE {_ID} = '' AND {_ALERT} = '' AND {_TALK} <> '' AND m.conversation_id = {_TALK}
            ORDER BY m.ingested_at DESC LIMIT 500)
        UNION
        (SELECT f.* FROM (SELECT DISTINCT name AS probe FROM probes) AS p CROSS JOIN LATERAL (
            SELECT {_KEY} FROM scores AS s JOIN messages AS m ON m.source = s.source AND m.partition = s.partition
                AND m."offset" = s."offset" AND m.day = s.day AND m.status IN ('scored', 'truncated')
            WHERE s.probe = p.probe AND s.flagged AND $__timeFilter(s.created_at) AND {of_messages("tenant")}
                AND {of_messages("model")} AND m.ingested_at > {_EARLIEST}
            ORDER BY s.created_at DESC LIMIT 100
        ) AS f WHERE {_ID} = '' AND {_ALERT} = '' AND {_TALK} = '' AND {chosen("probe", "p.probe")})
    )"""  # noqa: S608

_SCORES_OF = 's.source = w.source AND s.partition = w.partition AND s."offset" = w."offset" AND s.day = w.day'
_THE_SCORED = 'JOIN messages AS m USING (source, partition, "offset", payload_sha256, day)'
_HERE = chosen("probe", "s.probe")


def investigate() -> Json:
    """One message, conversation or tenant: scores by probe and head, alerts, mitigation before and after."""
    return dashboard(
        INVESTIGATE,
        "awry: investigate",
        "What awry knows of a message, a conversation, or the latest flagged messages of a tenant.",
        [
            (9, [(24, _messages())]),
            (9, [(12, _scores()), (12, _course())]),
            (8, [(12, _alerts()), (12, _heads())]),
            (9, [(24, _answers())]),
        ],
        [MESSAGE, ALERT, CONVERSATION, TENANT, MODEL, PROBES],
        since="now-24h",
    )


def _messages() -> Json:
    query = f"""{WANTED}
    SELECT m.ingested_at AS scored_at, m.message_id AS message, coalesce(m.tenant, '') AS tenant, m.model,
        m.conversation_id AS conversation, m.user_id AS "user", m.status, m.reason, m.tokens,
        best.probe AS top_probe, best.score AS top_score,
        best.excess AS over_threshold, m.text::text AS text, m.text_sha256, m.attributes::text AS attributes,
        m.source || '/' || m.partition || '/' || m."offset" AS coordinates, m.sent_at
    FROM wanted AS w {_THE_SCORED} LEFT JOIN LATERAL (
        SELECT s.probe, s.score, s.score - s.threshold AS excess FROM scores AS s WHERE {_SCORES_OF}
            AND m.status IN ('scored', 'truncated') ORDER BY s.score - s.threshold DESC LIMIT 1
    ) AS best ON true ORDER BY m.ingested_at DESC
    """  # noqa: S608
    return table(
        "Messages",
        "The message, alert or conversation that was asked for, else the latest flagged ones, a hundred a "
        "probe. Scores are in class gaps. Text is here only where the owner chose to keep it; awry show COORDINATES "
        "fetches it from the stream as long as the topic holds it.",
        sql(query),
        [
            column("message", link=("This message", link_to(INVESTIGATE, "message"))),
            column("conversation", link=("This conversation", link_to(INVESTIGATE, "conversation"))),
            column("coordinates", link=("This message", link_to(INVESTIGATE, "message"))),
            tenant_column(),
            column("top_probe", link=("This probe", link_to(PROBE, "probe"))),
            column("scored_at", unit="dateTimeAsLocal"),
            column("sent_at", unit="dateTimeAsLocal"),
            column("top_score", decimals=3),
            column("over_threshold", decimals=3, steps=((None, PLAIN), (0, WARN), (1, BAD))),
            column("text", long=True),
            column("attributes", long=True),
        ],
        empty="no such message, or nothing flagged in this range",
    )


def _scores() -> Json:
    query = f"""{WANTED}
    SELECT s.created_at AS scored_at, m.message_id AS message, s.probe, s.probe_version AS version, s.score,
        s.threshold, s.score - s.threshold AS over_threshold, s.flagged, s.shadow
    FROM wanted AS w {_THE_SCORED} JOIN scores AS s ON {_SCORES_OF}
    WHERE m.status IN ('scored', 'truncated') AND {_HERE} ORDER BY s.score - s.threshold DESC LIMIT 1000
    """  # noqa: S608
    return table(
        "Scores by probe",
        "Every score of these messages, the furthest above its threshold first, in class gaps. In "
        "shadow mode a probe opens no alert.",
        sql(query),
        [
            column("scored_at", unit="dateTimeAsLocal"),
            column("message", link=("This message", link_to(INVESTIGATE, "message"))),
            column("probe", link=("This probe", link_to(PROBE, "probe"))),
            column("score", decimals=3),
            column("threshold", decimals=3),
            column("over_threshold", decimals=3, steps=((None, PLAIN), (0, WARN), (1, BAD))),
        ],
        empty="no scores",
    )


def _course() -> Json:
    query = f"""{WANTED}
    SELECT s.created_at AS time, s.probe AS metric, s.score AS value
    FROM wanted AS w {_THE_SCORED} JOIN scores AS s ON {_SCORES_OF}
    WHERE m.status IN ('scored', 'truncated') AND {_HERE} AND $__timeFilter(s.created_at) ORDER BY 1, 2
    """  # noqa: S608
    return lines(
        "Course",
        "The same scores over time, in class gaps: how a conversation developed. Widen the range where it "
        "began before.",
        "suffix: gaps",
        [sql(query, series=True)],
        points=True,
    )


def _alerts() -> Json:
    query = f"""{WANTED}
    SELECT a.last_seen_at AS last, a.severity, a.state, a.rule, a.probe, coalesce(a.tenant, '') AS tenant, a.count,
        a.top_score, a.verdict, a.acknowledged_by, a.opened_at AS opened, a.resolved_at AS resolved, a.id::text AS alert
    FROM alerts AS a WHERE a.id IN (
        SELECT l.alert_id FROM wanted AS w JOIN alert_messages AS l ON l.source = w.source
            AND l.partition = w.partition AND l."offset" = w."offset" AND l.day = w.day
    ) ORDER BY a.last_seen_at DESC LIMIT 100
    """  # noqa: S608
    return table(
        "Alerts",
        "The alerts that these messages opened or were counted in, with the reviewer's verdict.",
        sql(query),
        [
            *(column(name, unit="dateTimeAsLocal") for name in ("last", "opened", "resolved")),
            column("alert", link=("Messages of this alert", link_to(INVESTIGATE, "alert"))),
            column("top_score", decimals=2),
            tenant_column(),
            column("probe", link=("This probe", link_to(PROBE, "probe"))),
        ],
        empty="none",
    )


def _heads() -> Json:
    query = f"""{WANTED}
    SELECT s.layer, s.head, round(avg(s.score)::numeric, 3)::float8 AS score
    FROM wanted AS w JOIN head_scores AS s ON {_SCORES_OF} WHERE {_HERE}
    GROUP BY s.layer, s.head ORDER BY s.layer, s.head
    """  # noqa: S608
    return matrix(
        "Heads",
        "The mean score of these messages by layer and head, of the probes that read heads.",
        "suffix: gaps",
        sql(query),
        "layer",
        "head",
        "score",
        empty="no probe here reads heads",
    )


def _answers() -> Json:
    query = f"""{WANTED}
    SELECT m.message_id AS message, before.tokens AS tokens_before, after.tokens AS tokens_after,
        before.text AS before, after.text AS after, before.text_sha256 = after.text_sha256 AS unchanged,
        after.recipe, coalesce(after.created_at, before.created_at) AS answered_at,
        m.source || '/' || m.partition || '/' || m."offset" AS coordinates
    FROM wanted AS w {_THE_SCORED}
    LEFT JOIN answers AS before ON before.source = w.source AND before.partition = w.partition
        AND before."offset" = w."offset" AND before.day = w.day AND before.kind = 'plain'
    LEFT JOIN answers AS after ON after.source = w.source AND after.partition = w.partition
        AND after."offset" = w."offset" AND after.day = w.day AND after.kind = 'mitigated'
    WHERE before.kind IS NOT NULL OR after.kind IS NOT NULL ORDER BY answered_at DESC LIMIT 100
    """  # noqa: S608
    return table(
        "Mitigation, before and after",
        "The plain answer beside the one with the direction taken out, where they were "
        "generated (awry run --mitigate, --also-plain) and where text is kept.",
        sql(query),
        [
            column("message", link=("This message", link_to(INVESTIGATE, "message"))),
            column("answered_at", unit="dateTimeAsLocal"),
            column("before", long=True),
            column("after", long=True),
        ],
        empty="no answers stored",
    )
