"""One message, one conversation, or the latest flagged messages: their scores by probe and head, alerts, mitigation.

All panels show the same messages (`SELECTED`): the one with the given id or coordinates (SOURCE/PARTITION/OFFSET, with
.SUB where its record held several), else those of the given alert, else those of the given conversation, else the
latest flagged ones of the selected tenants, models and probes. Text is shown where it was stored, which `privacy`
decides.
"""

from __future__ import annotations

from alerts.dashboards.board import (
    INVESTIGATE,
    MODEL,
    PROBE,
    PROBES,
    TENANT,
    coordinates,
    dashboard,
    link_to,
    matches,
    matches_nullable,
    series_by_card,
    tenant_column,
    text_variable,
)
from alerts.dashboards.panels import BAD, PLAIN, WARN, Json, column, matrix, sql, table, timeseries

MESSAGE = text_variable(
    "message", "Message", "The id of a message, or its coordinates as SOURCE/PARTITION/OFFSET[.SUB]."
)
ALERT = text_variable("alert", "Alert", "The id of an alert: the messages with the highest scores that it counted.")
CONVERSATION = text_variable("conversation", "Conversation", "The id of a conversation.")

_KEY = 'm.source, m.partition, m."offset", m.sub, m.payload_sha256, m.day'
_ID, _ALERT, _CONVERSATION = "${message:sqlstring}", "${alert:sqlstring}", "${conversation:sqlstring}"
# At most as many digits as fit the columns: input must not break the query. A source may hold slashes and dots.
_DIGITS, _MORE_DIGITS, _SUB = "[0-9]{1,9}", "[0-9]{1,18}", "(?:[.][0-9]{1,9})?"
_MATCHES_COORDINATES = f"""m.source = substring({_ID} from '^(.+)/{_DIGITS}/{_MORE_DIGITS}{_SUB}$')
            AND m.partition = substring({_ID} from '^.+/({_DIGITS})/{_MORE_DIGITS}{_SUB}$')::integer
            AND m."offset" = substring({_ID} from '^.+/{_DIGITS}/({_MORE_DIGITS}){_SUB}$')::bigint
            AND m.sub = coalesce(substring({_ID} from '^.+/{_DIGITS}/{_MORE_DIGITS}[.]({_DIGITS})$')::integer, 0)"""

_UUID = f"substring({_ALERT} from '^[0-9a-fA-F]{{8}}(?:-[0-9a-fA-F]{{4}}){{3}}-[0-9a-fA-F]{{12}}$')::uuid"

# A replay scores messages as old as the topic's retention; without a bound all of a tenant's would be read.
_EARLIEST = "$__timeFrom()::timestamptz - interval '8 days'"

SELECTED = f"""
    WITH wanted AS MATERIALIZED (
        (SELECT {_KEY} FROM messages AS m WHERE {_ID} <> '' AND m.message_id = {_ID} LIMIT 100)
        UNION
        (SELECT {_KEY} FROM messages AS m WHERE {_ID} <> '' AND {_MATCHES_COORDINATES} LIMIT 100)
        UNION
        (SELECT {_KEY} FROM alert_messages AS l JOIN messages AS m ON m.source = l.source
            AND m.partition = l.partition AND m."offset" = l."offset" AND m.sub = l.sub AND m.day = l.day
            AND m.status IN ('scored', 'truncated')
            WHERE {_ID} = '' AND {_ALERT} <> '' AND l.alert_id = {_UUID} ORDER BY l.score DESC LIMIT 200)
        UNION
        (SELECT {_KEY} FROM messages AS m
            WHERE {_ID} = '' AND {_ALERT} = '' AND {_CONVERSATION} <> '' AND m.conversation_id = {_CONVERSATION}
            ORDER BY m.ingested_at DESC LIMIT 500)
        UNION
        (SELECT f.* FROM (SELECT DISTINCT name AS probe FROM probes) AS p CROSS JOIN LATERAL (
            SELECT {_KEY} FROM scores AS s JOIN messages AS m ON m.source = s.source AND m.partition = s.partition
                AND m."offset" = s."offset" AND m.sub = s.sub AND m.day = s.day AND m.status IN ('scored', 'truncated')
            WHERE s.probe = p.probe AND s.flagged AND $__timeFilter(s.created_at) AND {matches_nullable("tenant")}
                AND {matches_nullable("model")} AND m.ingested_at > {_EARLIEST}
            ORDER BY s.created_at DESC LIMIT 100
        ) AS f WHERE {_ID} = '' AND {_ALERT} = '' AND {_CONVERSATION} = '' AND {matches("probe", "p.probe")})
    )"""  # noqa: S608

_SCORES_OF = """s.source = w.source AND s.partition = w.partition AND s."offset" = w."offset" AND s.sub = w.sub
            AND s.day = w.day"""
_JOIN_MESSAGES = 'JOIN messages AS m USING (source, partition, "offset", sub, payload_sha256, day)'
_PROBE_MATCHES = matches("probe", "s.probe")


def investigate() -> Json:
    """One message, conversation or tenant: scores by probe and head, alerts, mitigation before and after."""
    return dashboard(
        INVESTIGATE,
        "awry: investigate",
        "Scores, alerts and mitigation of a message, a conversation, or the latest flagged messages of a tenant.",
        [
            (9, [(24, _messages())]),
            (9, [(12, _scores()), (12, _course())]),
            (8, [(12, _alerts()), (12, _heads())]),
            (9, [(24, _answers())]),
        ],
        [MESSAGE, ALERT, CONVERSATION, TENANT, MODEL, PROBES],
        time_from="now-24h",
    )


def _messages() -> Json:
    query = f"""{SELECTED}
    SELECT m.ingested_at AS scored_at, m.message_id AS message, coalesce(m.tenant, '') AS tenant, m.model,
        m.conversation_id AS conversation, m.user_id AS "user", m.status, m.reason, m.tokens, m.partial, m.windows,
        m.format, m.rendered, m.notes::text AS notes, m.unread::text AS unread, m.special_tokens,
        best.probe AS top_probe, best.score AS top_score,
        best.excess AS over_threshold, m.text::text AS text, m.text_sha256, m.attributes::text AS attributes,
        {coordinates("m.")} AS coordinates, m.sent_at, m.trace_id
    FROM wanted AS w {_JOIN_MESSAGES} LEFT JOIN LATERAL (
        SELECT s.probe, s.score, s.score - s.threshold AS excess FROM scores AS s WHERE {_SCORES_OF}
            AND m.status IN ('scored', 'truncated') ORDER BY s.score - s.threshold DESC LIMIT 1
    ) AS best ON true ORDER BY m.ingested_at DESC
    """  # noqa: S608
    return table(
        "Messages",
        "The message, alert or conversation that was selected, else the latest flagged ones, a hundred a "
        "probe. Scores are in class gaps. `partial` says why a message was not read whole, `notes` what was adapted "
        "or dropped. Text is shown only where it is stored (privacy = full); awry messages show "
        "COORDINATES reads it from the stream, within the retention of its topic.",
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
            column("text", expandable=True),
            column("attributes", expandable=True),
            column("notes", expandable=True),
        ],
        no_value="no such message, or nothing flagged in this range",
    )


def _scores() -> Json:
    query = f"""{SELECTED}
    SELECT s.created_at AS scored_at, m.message_id AS message, s.probe, s.probe_version AS version,
        coalesce(nullif(left(s.probe_digest, 8), ''), 'unknown') AS digest, s.score,
        s.threshold, s.score - s.threshold AS over_threshold, s.flagged, s.shadow
    FROM wanted AS w {_JOIN_MESSAGES} JOIN scores AS s ON {_SCORES_OF}
    WHERE m.status IN ('scored', 'truncated') AND {_PROBE_MATCHES} ORDER BY s.score - s.threshold DESC LIMIT 1000
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
        no_value="no scores",
    )


def _course() -> Json:
    query = f"""{SELECTED}
    SELECT time, {series_by_card("time")} AS metric, value FROM (SELECT s.created_at AS time, s.probe, s.probe_version,
        s.probe_digest, s.score AS value FROM wanted AS w {_JOIN_MESSAGES} JOIN scores AS s ON {_SCORES_OF}
    WHERE m.status IN ('scored', 'truncated') AND {_PROBE_MATCHES} AND $__timeFilter(s.created_at)) AS found
    ORDER BY 1, 2
    """  # noqa: S608
    return timeseries(
        "Course",
        "The same scores over time, in class gaps: how a conversation developed. Widen the time range if it "
        "began earlier.",
        "suffix: gaps",
        [sql(query, series=True)],
        points=True,
    )


def _alerts() -> Json:
    query = f"""{SELECTED}
    SELECT a.last_seen_at AS last, a.severity, a.state, a.rule, a.probe, coalesce(a.tenant, '') AS tenant, a.count,
        a.top_score, a.verdict, a.acknowledged_by, a.opened_at AS opened, a.resolved_at AS resolved, a.id::text AS alert
    FROM alerts AS a WHERE a.id IN (
        SELECT l.alert_id FROM wanted AS w JOIN alert_messages AS l ON l.source = w.source
            AND l.partition = w.partition AND l."offset" = w."offset" AND l.sub = w.sub AND l.day = w.day
    ) ORDER BY a.last_seen_at DESC LIMIT 100
    """  # noqa: S608
    return table(
        "Alerts",
        "The alerts that count these messages, with the reviewer's verdict.",
        sql(query),
        [
            *(column(name, unit="dateTimeAsLocal") for name in ("last", "opened", "resolved")),
            column("alert", link=("Messages of this alert", link_to(INVESTIGATE, "alert"))),
            column("top_score", decimals=2),
            tenant_column(),
            column("probe", link=("This probe", link_to(PROBE, "probe"))),
        ],
        no_value="none",
    )


def _heads() -> Json:
    query = f"""{SELECTED}
    SELECT e.layer, e.head, round(avg(e.score)::numeric, 3)::float8 AS score
    FROM wanted AS w CROSS JOIN LATERAL (
        SELECT DISTINCT ON (s.probe) s.probe, s.probe_digest FROM scores AS s WHERE {_SCORES_OF} AND {_PROBE_MATCHES}
        ORDER BY s.probe, s.created_at DESC, s.probe_version DESC
    ) AS last JOIN head_scores AS h ON h.source = w.source AND h.partition = w.partition AND h."offset" = w."offset"
        AND h.sub = w.sub AND h.day = w.day AND h.probe = last.probe AND h.probe_digest = last.probe_digest
        JOIN head_layouts AS l ON l.id = h.layout
        CROSS JOIN unnest(l.layers, l.heads, h.scores) AS e (layer, head, score)
    GROUP BY e.layer, e.head ORDER BY e.layer, e.head
    """  # noqa: S608
    return matrix(
        "Heads",
        "The mean score of these messages by layer and head, of the probes that read heads: of the card that scored "
        "last.",
        "suffix: gaps",
        sql(query),
        "layer",
        "head",
        "score",
        no_value="no probe here reads heads",
    )


def _answers() -> Json:
    query = f"""{SELECTED}
    SELECT m.message_id AS message, before.tokens AS tokens_before, after.tokens AS tokens_after,
        before.text AS before, after.text AS after, before.text_sha256 = after.text_sha256 AS unchanged,
        after.recipe, coalesce(after.created_at, before.created_at) AS answered_at,
        {coordinates("m.")} AS coordinates
    FROM wanted AS w {_JOIN_MESSAGES}
    LEFT JOIN answers AS before ON before.source = w.source AND before.partition = w.partition
        AND before."offset" = w."offset" AND before.sub = w.sub AND before.day = w.day AND before.kind = 'plain'
    LEFT JOIN answers AS after ON after.source = w.source AND after.partition = w.partition
        AND after."offset" = w."offset" AND after.sub = w.sub AND after.day = w.day AND after.kind = 'mitigated'
    WHERE before.kind IS NOT NULL OR after.kind IS NOT NULL ORDER BY answered_at DESC LIMIT 100
    """  # noqa: S608
    return table(
        "Mitigation, before and after",
        "The plain answer beside the one generated under mitigation, where they were "
        "generated (awry run --mitigate, --also-plain) and text is stored.",
        sql(query),
        [
            column("message", link=("This message", link_to(INVESTIGATE, "message"))),
            column("answered_at", unit="dateTimeAsLocal"),
            column("before", expandable=True),
            column("after", expandable=True),
        ],
        no_value="no answers stored",
    )
