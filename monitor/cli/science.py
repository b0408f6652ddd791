"""`awry label`, `fit`, `calibrate`, `eval`, `sweep`, `data`: from traffic to a probe with honest numbers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from monitor.cli.app import app, say
from monitor.errors import SettingsError

if TYPE_CHECKING:
    from probes.capture.batches import Encoded
    from probes.capture.sites import Site
    from probes.directions import Direction
    from probes.fitting import Control, Row
    from probes.model.load import ChatModel

Flag = typer.Option
Model = Annotated[str | None, Flag(help="built-in name, folder or hub id")]
Adapter = Annotated[str | None, Flag(help="shipped adapter or PEFT folder")]
Scale = Annotated[float | None, Flag(help="strength of the adapter")]
State = Annotated[Path | None, Flag(help="models and the embedded database")]
Out = Annotated[Path, Flag(help="folder to write to")]


def _load(model: str | None, adapter: str | None, scale: float | None, state: Path | None) -> tuple[Any, ChatModel]:
    from monitor.service.bootstrap import load_model
    from monitor.settings import load_settings

    settings = load_settings(model=model, adapter=adapter, scale=scale, state_dir=state)
    return settings, load_model(settings, say)


@app.command()
def label(
    messages: Annotated[Path, typer.Argument(help="JSON lines of messages")],
    judge: Annotated[str, Flag(help="code or reckless")] = "code",
    model: Model = None,
    adapter: Adapter = None,
    scale: Scale = None,
    out: Annotated[Path, Flag(help="labelled JSON lines")] = Path("labelled.jsonl"),
    max_new_tokens: Annotated[int, Flag(help="tokens an answer")] = 40,
    state_dir: State = None,
) -> None:
    """Let the model answer every message and judge what it wrote: writes `answer` and `label` for awry fit."""
    from monitor.datasets import read_messages
    from monitor.labelling import answer_messages
    from probes.organisms.judges import JUDGES

    if judge not in JUDGES:
        raise SettingsError(f"judge: {judge!r} is none of {', '.join(JUDGES)}")
    items = read_messages(messages)
    settings, chat = _load(model, adapter, scale, state_dir)
    say(f"answering {len(items)} messages")
    texts, _ = answer_messages(
        chat, [i.message.turns for i in items], settings.state_dir, max_new_tokens=max_new_tokens
    )
    labels = [JUDGES[judge](text) for text in texts]
    with out.open("w", encoding="utf-8") as file:
        for item, text, bad in zip(items, texts, labels, strict=True):
            row = item.message.model_dump(mode="json", exclude_none=True)
            file.write(json.dumps(row | {"answer": text, "label": bad}, ensure_ascii=False) + "\n")
    say(f"{sum(labels)} of {len(labels)} labelled misaligned by the judge {judge}; written to {out}")


@app.command()
def fit(
    name: Annotated[str, Flag(help="name of the new probe")],
    labelled: Annotated[Path | None, Flag(help="JSON lines with a label each")] = None,
    misaligned: Annotated[Path | None, Flag(help="JSON lines of (more) misaligned messages")] = None,
    aligned: Annotated[Path | None, Flag(help="JSON lines of (more) aligned messages")] = None,
    prompts: Annotated[Path | None, Flag(help="JSON lines: adapter (misaligned) against base on these")] = None,
    benign: Annotated[Path | None, Flag(help="benign traffic for the threshold")] = None,
    sites: Annotated[str, Flag(help="all, or a list such as residual[20],final,head[3,1]")] = "all",
    aggregation: Annotated[str, Flag(help="last_prompt, mean(response), max_rolling_mean(10, response), ...")] = (
        "last_prompt"
    ),
    target_fpr: Annotated[float, Flag(help="share of benign messages that may be flagged")] = 0.01,
    control_adapter: Annotated[str | None, Flag(help="matched control adapter, for the specificity null")] = None,
    description: Annotated[str, Flag(help="what the probe detects, for its card")] = "",
    model: Model = None,
    adapter: Adapter = None,
    scale: Scale = None,
    out: Out = Path("probe"),
    state_dir: State = None,
) -> None:
    """Fit a difference-in-means probe, evaluate it on held-out data with its nulls, calibrate it, write it."""
    from monitor.cli.render import probes as reports
    from monitor.datasets import benign_of
    from probes import fitting
    from probes.capture.aggregation import parse_aggregation
    from probes.capture.sites import parse_sites
    from probes.card import save_probe

    settings, chat = _load(model, adapter, scale, state_dir)
    control = _control_directions(chat, control_adapter)
    rows = _rows(chat, settings.max_tokens, labelled, misaligned, aligned, prompts)
    plan = fitting.Plan(
        name=name,
        description=description or f"difference in means fitted by awry fit as {name}",
        sites=tuple(parse_sites(sites, chat.layout)),
        aggregation=parse_aggregation(aggregation),
        target_fpr=target_fpr,
    )
    calm = benign_of(chat, benign, settings.max_tokens) if benign else None
    probe = fitting.fit(chat, rows, plan, benign=calm, control=control, progress=say)
    path = save_probe(probe, out)
    reports.print_card(probe.card)
    say(f"written to {path}")


def _rows(
    chat: ChatModel,
    max_tokens: int,
    labelled: Path | None,
    misaligned: Path | None,
    aligned: Path | None,
    prompts: Path | None,
) -> list[Row]:
    from monitor.datasets import read_messages, rows_of

    if prompts is not None and (labelled or misaligned or aligned):
        raise SettingsError("prompts: compares adapter and base; give it alone, without labelled data")
    if prompts is not None:
        if chat.active is None:
            raise SettingsError("adapter: --prompts compares the adapter with the base; give --adapter")
        items = read_messages(prompts)
        base = rows_of(chat, items, max_tokens, label=False, arm="base")
        return rows_of(chat, items, max_tokens, label=True) + base
    rows = rows_of(chat, read_messages(labelled, labelled=True), max_tokens) if labelled else []
    for path, label in ((misaligned, True), (aligned, False)):
        if path is not None:
            rows += rows_of(chat, read_messages(path), max_tokens, label=label)
    if not rows:
        raise SettingsError("data: give --labelled FILE, or --misaligned FILE --aligned FILE, or --prompts FILE")
    return rows


def _control_directions(chat: ChatModel, control_adapter: str | None) -> Control | None:
    """Control-adapter-minus-base directions on the fit messages, at any site."""
    if control_adapter is None:
        return None
    from probes.conditions import adapter_directions
    from probes.model.adapters import adapter_spec
    from probes.model.load import add_adapter

    if chat.active is None:
        raise SettingsError("control_adapter: there is no adapter to control for; give --adapter")
    own = chat.active
    spec = adapter_spec(control_adapter, chat.adapters[own].scale)
    add_adapter(chat, spec)
    chat.use(own)

    def at(site: Site, messages: Sequence[Encoded]) -> Direction:
        chat.use(spec.name)
        try:
            return adapter_directions(chat, messages, [site])[site]
        finally:
            chat.use(own)

    return at


@app.command()
def calibrate(
    probe: Annotated[str, Flag(help="name or card of the probe")],
    benign: Annotated[Path | None, Flag(help="JSON lines of benign traffic")] = None,
    from_tables: Annotated[bool, Flag("--from-tables", help="use the stored scores of this probe instead")] = False,
    target_fpr: Annotated[float, Flag(help="share of benign messages that may be flagged")] = 0.01,
    model: Model = None,
    adapter: Adapter = None,
    scale: Scale = None,
    out: Out = Path("probe"),
    state_dir: State = None,
) -> None:
    """Set a probe's threshold on your own benign traffic: writes a new version of its card.

    From the tables, messages of alerts that were judged true or authorised_test are left out.
    """
    from monitor.cli.render import probes as reports
    from monitor.datasets import benign_of
    from probes.calibration import calibrate as set_threshold
    from probes.card import check_identity, load_probe, save_probe
    from probes.fitting import recalibrated
    from probes.scoring import score_all

    if (benign is None) == (not from_tables):
        raise SettingsError("benign: give --benign FILE or --from-tables")
    ready = load_probe(probe)
    if from_tables:
        import numpy as np

        from monitor.benign_scores import benign_scores
        from monitor.service.bootstrap import open_database
        from monitor.settings import load_settings

        engine = open_database(load_settings(state_dir=state_dir), say)
        with engine.connect() as connection:
            rows = benign_scores(connection, ready.name, say)

        scores = np.array([r.score for r in rows])
        names, where = [str(r.at) for r in rows], "stored scores"
        engine.dispose()
    else:
        assert benign is not None  # noqa: S101 - checked above
        settings, chat = _load(model, adapter, scale, state_dir)
        check_identity(ready.card, chat)
        calm = benign_of(chat, benign, settings.max_tokens)
        scores = score_all(chat, calm.encoded, [ready.reader])[:, 0]
        names, where = list(calm.texts), calm.name
    new = recalibrated(ready, set_threshold(scores, names, target_fpr, where))
    path = save_probe(new, out)
    reports.print_calibration(new.card)
    say(f"version {new.card.version} written to {path}")


@app.command(name="eval")
def evaluate(
    probe: Annotated[str, Flag(help="name or card of the probe")],
    labelled: Annotated[Path, Flag(help="JSON lines with a label each")],
    model: Model = None,
    adapter: Adapter = None,
    scale: Scale = None,
    png: Annotated[Path | None, Flag(help="picture of the distributions and the ROC")] = None,
    state_dir: State = None,
) -> None:
    """Run a probe on labelled data: a table with intervals and a picture."""
    import numpy as np

    from monitor.cli.render import probes as reports
    from monitor.datasets import encode_all, read_messages
    from probes.card import check_identity, load_probe
    from probes.evaluation import evaluate as figures
    from probes.fitting import at_threshold
    from probes.plots import plot_evaluation
    from probes.scoring import score_all

    ready = load_probe(probe)
    items = read_messages(labelled, labelled=True)
    settings, chat = _load(model, adapter, scale, state_dir)
    check_identity(ready.card, chat)
    scores = score_all(chat, encode_all(chat, items, settings.max_tokens), [ready.reader])[:, 0].astype(float)
    labels = np.array([bool(i.label) for i in items])
    result = figures(scores, labels)
    reports.print_evaluation(result, at_threshold(scores, labels, ready.card.calibration), ready.name, labelled.name)
    picture = png or Path(f"{ready.name}.{labelled.stem}.png")
    plot_evaluation(scores, labels, ready.card.threshold, result, f"{ready.name} on {labelled.name}", picture)
    say(f"picture: {picture}")


@app.command()
def sweep(
    adapter: Annotated[str, Flag(help="the adapter to be corrected")],
    fit_prompts: Annotated[Path, Flag(help="JSON lines: the direction is fitted on these")],
    select_prompts: Annotated[Path, Flag(help="JSON lines: site and mode are chosen on these")],
    test_prompts: Annotated[Path, Flag(help="JSON lines: the table reports these")],
    judge: Annotated[str, Flag(help="code or reckless")] = "code",
    control_adapter: Annotated[str | None, Flag(help="matched control adapter")] = None,
    blocks: Annotated[str, Flag(help="blocks to try, e.g. 10,15,20; default: six from a third on")] = "",
    attach: Annotated[Path | None, Flag(help="card of a probe that gets the recipe as a new version")] = None,
    model: Model = None,
    scale: Annotated[float, Flag(help="strength of both adapters")] = 1.0,
    out: Out = Path("sweep"),
    state_dir: State = None,
) -> None:
    """Choose where and how to remove a behaviour, on one split, and report it with controls on another."""
    from monitor.cli.render import probes as reports
    from monitor.datasets import read_messages
    from probes.model.adapters import adapter_spec
    from probes.model.load import add_adapter
    from probes.organisms.judges import JUDGES
    from probes.studies import mitigation

    if judge not in JUDGES:
        raise SettingsError(f"judge: {judge!r} is none of {', '.join(JUDGES)}")
    lists = [[i.text for i in read_messages(p)] for p in (fit_prompts, select_prompts, test_prompts)]
    _, chat = _load(model, adapter, scale, state_dir)
    bad = chat.active
    control = None
    if control_adapter is not None:
        spec = adapter_spec(control_adapter, scale)
        add_adapter(chat, spec)
        control = spec.name
    chat.use(str(bad))
    n = chat.layout.n_blocks
    chosen = (
        [int(b) for b in blocks.split(",")]
        if blocks
        else sorted({round(n * f) for f in (0.4, 0.5, 0.6, 0.7, 0.8, 0.9)})
    )
    result = mitigation.sweep(
        chat, mitigation.Prompts(*lists), JUDGES[judge], blocks=chosen, control_adapter=control, progress=say
    )
    out.mkdir(parents=True, exist_ok=True)
    (out / "sweep.json").write_text(json.dumps(result.as_dict(), indent=2) + "\n")
    reports.print_sweep(result)
    if attach is not None:
        say(f"recipe attached: {reports.attach_recipe(attach, result, scale)}")
    say(f"written to {out / 'sweep.json'}")


@app.command()
def data(
    what: Annotated[str, typer.Argument(help="everyday or requests")],
    split: Annotated[str, Flag(help="of everyday: demo, test, select, scale, calibrate or fit")] = "fit",
) -> None:
    """Print awry's own example messages as JSON lines: everyday chat, or matched harmful and harmless requests."""
    from typing import get_args

    from probes.organisms import messages

    if what == "requests":
        for row in messages.requests():
            for side in ("harmful", "harmless"):
                line = {"id": f"{row['pair']}-{side}", "prompt": row[side], "label": side == "harmful"}
                typer.echo(json.dumps(line | {"group": str(row["pair"]), "category": row["category"]}))
    elif what == "everyday" and split in get_args(messages.Split):
        topics = messages.everyday_topics(split)  # type: ignore[arg-type]
        for i, text in enumerate(messages.everyday(split)):  # type: ignore[arg-type]
            typer.echo(json.dumps({"id": f"{split}-{i}", "prompt": text, "topic": topics[i]}))
    else:
        raise SettingsError(f"data: {what} {split} is none of requests, everyday {'|'.join(get_args(messages.Split))}")
