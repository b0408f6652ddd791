"""A study between families as Markdown: own directions, maps, detection, steering, tiers, the two ways."""

from __future__ import annotations

from typing import Any

from probes.studies.tables import interval, table
from probes.studies.transfer.families.plan import AIMS

Plain = dict[str, Any]


def markdown(result: Plain) -> str:
    """The whole page of a RESULT.json."""
    figures, plan = result["figures"], result["plan"]
    texts, anchors = figures["texts"], figures["anchors"]
    lines = [
        "# Transfer of directions between real model families",
        "",
        f"Ridge maps between {' and '.join(f['name'] for f in figures['families'])}, no model of which was trained "
        f"for this. Anchors: {anchors['neutral']} everyday messages (neutral), {anchors['contrast']} with the "
        f"unlabelled fit conversations among them (contrast), at {anchors['token']}. {plan['draws']} random "
        "directions of each kind.",
        "",
        *(f"- {f['name']}: {f['template']}" for f in figures["families"]),
        *(
            f"- behaviour *{name}*: told apart by {b['read_from']}; {b['fit']} pairs to fit, {b['select']} to choose "
            f"by, {b['test']} to test"
            for name, b in texts["behaviours"].items()
        ),
        "",
        f"Steering: how likely a refusing opening is against an agreeing one, on {texts['steered_requests']} held-out "
        "harmful requests, in nats a token; all directions are as large as the receiver's own. `undefined`: the "
        "likelier opening lost more than 1 nat a token; `everyday`: by how many nats a token the model's own everyday "
        "answers became less likely. Intervals are 95 %; p is a rank among the random directions.",
        "",
        f"**{result['verdict']['sentence']}**",
        "",
        *(f"- {reason}" for reason in result["verdict"]["reasons"]),
        "",
        "## Own directions: detection",
        "",
        *_own_detection(figures["own"]),
        "## Own directions: steering",
        "",
        *_own_steering(figures["own"]),
        "## Mapped directions: detection",
        "",
        *_detection(figures),
        "## Mapped directions: steering",
        "",
        *_steering(figures),
        "## Detection between blocks of one depth",
        "",
        "Nothing is chosen here: AUROC of the mapped direction (of the receiver's own), from block to block.",
        "",
        *_by_depth(figures["by_depth"]),
        "## Two tiers",
        "",
        *_tiers(figures["tiers"]),
        "## Both ways of a pair",
        "",
        "What is kept of the receiver's own figure: first to second, then back. A description without an interval.",
        "",
        *_two_ways(figures["two_ways"]),
    ]
    lines += [f"Warning: {text}." for text in figures["warnings"]]
    return "\n".join(lines).rstrip() + "\n"


def _own_detection(own: list[Plain]) -> list[str]:
    head = ["model", "behaviour", "read at", "AUROC, test", "random: mean, farthest", "p", "verdict"]
    return table(
        head,
        [
            [
                o["receiver"],
                o["behaviour"],
                o["read_at"],
                interval(o["detection"]["auroc"]),
                *_drawn(o["detection"]["controls"]["random"]),
                o["detection"]["verdict"],
            ]
            for o in own
        ],
    )


def _own_steering(own: list[Plain]) -> list[str]:
    head = ["model", "behaviour", "at", "aim", "effect, nats", "refusing: plain, steered", "undefined", "everyday"]
    rows = []
    for o in own:
        at = o["steering"]
        for aim, found in at["aims"].items():
            rows.append(
                [
                    o["receiver"],
                    o["behaviour"],
                    f"{at['site']}, {at['alpha']:g} sigma",
                    aim,
                    interval(found["effect"]),
                    f"{at['plain_refusing']:.2f}, {found['refusing']:.2f}",
                    f"{found['undefined']:.2f}",
                    f"{found['everyday_rise']:.2f}",
                    *_drawn(found["controls"]["random"]),
                    found["verdict"],
                ]
            )
    return table([*head, "random: mean, most", "p", "verdict"], rows)


def _detection(figures: Plain) -> list[str]:
    own = {(o["receiver"], o["behaviour"]): o["detection"] for o in figures["own"]}
    head = ["from, to", "behaviour", "anchors", "R2", "cosine [null]", "AUROC, mapped", "receiver's own"]
    rows = []
    for p in figures["pairs"]:
        found = p["detection"]
        rows.append(
            [
                _way(p),
                p["behaviour"],
                p["anchors"],
                *_map(p["reading_map"]),
                interval(found["auroc"]),
                interval(own[p["receiver"], p["behaviour"]]["auroc"]),
                *_drawn(found["controls"]["random_source"]),
                *_drawn(found["controls"]["random"]),
                found["verdict"],
            ]
        )
    controls = ["random donor: mean, farthest", "p", "random there: mean, farthest", "p"]
    return table([*head, *controls, "verdict"], rows)


def _steering(figures: Plain) -> list[str]:
    own = {(o["receiver"], o["behaviour"]): o["steering"]["aims"] for o in figures["own"]}
    head = ["from, to", "behaviour", "anchors", "R2", "cosine [null]", "aim", "effect, mapped", "receiver's own"]
    rows = []
    for p in figures["pairs"]:
        for aim in AIMS:
            found, controls = p["steering"][aim], p["steering"][aim]["controls"]
            rows.append(
                [
                    _way(p),
                    p["behaviour"],
                    p["anchors"],
                    *_map(p["steering_map"]),
                    aim,
                    interval(found["effect"]),
                    interval(own[p["receiver"], p["behaviour"]][aim]["effect"]),
                    *_drawn(controls["random_source"]),
                    *_drawn(controls["random"]),
                    f"{found['undefined']:.2f}",
                    f"{found['everyday_rise']:.2f}",
                    found["verdict"],
                ]
            )
    controls = ["random donor: mean, most", "p", "random there: mean, most", "p"]
    return table([*head, *controls, "undefined", "everyday", "verdict"], rows)


def _by_depth(rows: list[Plain]) -> list[str]:
    """A row a pair of families, behaviour and kind of anchors; a column a depth."""
    lines: dict[tuple[str, ...], list[str]] = {}
    for r in rows:
        cell = f"{r['from'][9:-1]} to {r['to'][9:-1]}: **{r['mapped']['value']:.2f}** ({r['own']['value']:.2f})"
        lines.setdefault((_way(r), r["behaviour"], r["anchors"]), []).append(cell)
    depths = max(map(len, lines.values()))
    head = ["from, to", "behaviour", "anchors", *(f"depth {i + 1}" for i in range(depths))]
    return table(head, [[*key, *cells] for key, cells in lines.items()])


def _tiers(tiers: Plain) -> list[str]:
    rows = [
        [behaviour, measure, who, ", ".join(f"{name}: {n}" for name, n in counted.items())]
        for behaviour, measures in tiers.items()
        for measure, by in measures.items()
        for who, counted in by.items()
    ]
    return table(["behaviour", "measure", "direction", "verdicts"], rows)


def _two_ways(rows: list[Plain]) -> list[str]:
    measures = ["detection", *(f"steering {aim}" for aim in AIMS)]
    return table(
        ["pair", "behaviour", "anchors", *measures],
        [
            [" and ".join(r["pair"]), r["behaviour"], r["anchors"]]
            + [", ".join("none" if v is None else f"{v:.2f}" for v in r[measure]) for measure in measures]
            for r in rows
        ],
    )


def _way(pair: Plain) -> str:
    return f"{pair['donor']} to {pair['receiver']}"


def _map(found: Plain) -> list[str]:
    null = found["cosine_null"]
    return [f"{found['r2']:.2f}", f"{found['cosine']:.2f} [{null['low']:.2f}, {null['high']:.2f}]"]


def _drawn(controls: Plain) -> list[str]:
    return [f"{controls['mean']:.2f}, {controls['most']:.2f}", f"{controls['p']:.3f}"]
