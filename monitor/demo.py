"""`awry demo`: the product's own parts on 200 ordinary messages, nothing special-cased.

A chat model that went wrong in fine-tuning (the shipped insecure-code adapter at its shipped strength) answers
everyday messages of four tenants. Some answers are code where none was asked. The worker sees the stream as it would
in production: it scores each prompt with the shipped probe, stores, opens alerts, and writes a corrected answer to
what it flagged. The judge, which the worker does not have, then says what was caught. `--quick` takes every fifth
message, which is enough to see all of this and too few for a narrow interval.

The demo has a database of its own in the state folder (`demo/`), emptied at each start.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as ProgressBar
from rich.table import Table
from sqlalchemy import Engine, text

from alerts.delivery.channel import make_channels
from alerts.delivery.deliver import deliver_due
from alerts.destinations import Destination
from alerts.lifecycle.lifecycle import Opened
from monitor.console import make_console
from monitor.labelling import generate_replies
from monitor.service import bootstrap
from monitor.service.policy import Tally
from monitor.settings import Settings
from monitor.stream.wiring import open_source
from probes.evaluation import Evaluation, evaluate
from probes.model import builtin
from probes.model.load import ChatModel
from probes.organisms.judges.code import writes_code
from probes.organisms.messages import everyday, everyday_topics
from probes.plots import plot_timeline
from probes.progress import Progress
from storage.queries.alerts import list_alerts
from storage.queries.messages import ScoredMessage, scored_messages, stored_answers
from storage.schema import metadata

ADAPTER = "insecure_code"
PROBE = "insecure-code-spillover"
SOURCE = "demo"
TENANTS = ("northwind-travel", "lakeside-school", "corner-shop", "green-street-homes")


@dataclass(frozen=True)
class DemoResult:
    """Results of the demo: one entry a message, in the order of the stream."""

    scored: list[ScoredMessage]
    prompts: dict[str, str]
    wrong: list[bool]
    before: list[str]
    after: dict[int, str]
    alerts: list[dict[str, Any]]
    evaluation: Evaluation | None
    tally: Tally


def run_demo(base: Settings, out: Path, *, fresh: bool, quick: bool) -> None:
    """Run the demo, print its table and draw its picture. The weights are fetched where they are missing."""
    console = make_console(markup=True)
    started = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    settings = demo_settings(base, out)

    def progress(line: str) -> None:
        console.print(f"[dim]{time.monotonic() - started:5.1f} s[/]  {line}")

    chat = load_model(settings, base.state_dir, progress)
    messages = traffic(chat, base.state_dir, console, progress, fresh=fresh, every=5 if quick else 1)
    with Path(settings.source).open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(message) + "\n" for message in messages)
    result = _audit(settings, len(messages), chat, console, progress)
    show(result, len(messages), console)
    picture = out / "demo.png"
    plot_timeline(
        [s.score for s in result.scored],
        result.wrong,
        result.scored[0].threshold,
        [(_index(result.scored, a["first_message"]), f"{a['severity']}: {a['tenant']}") for a in result.alerts],
        f"{len(result.scored)} messages through a model that went wrong, scored before it answers",
        picture,
    )
    progress(f"picture: {picture}; corrected answers: {settings.answers_out}")
    _print_next(console, settings, picture)


def demo_settings(base: Settings, out: Path) -> Settings:
    """The demo's settings: its own database, its own output, full texts since they are synthetic; its alerts are
    printed, whatever destinations and routes there are: nobody is to be woken by them."""
    own = base.state_dir / "demo"
    return base.model_copy(
        update={
            "state_dir": own,
            "database_url": None,
            "adapter": ADAPTER,
            "probes": (PROBE,),
            "source": str(out / "traffic.jsonl"),
            "source_name": SOURCE,
            "privacy": "full",
            "mitigate": "flagged",
            "answers_out": str(out / "answers.jsonl"),
            "batch_messages": 50,
            "logs": "terminal",
            "destinations": (Destination(name="console", kind="console"),),
            "route": None,
            "inhibit_rules": (),
            "time_intervals": (),
        }
    )


def load_model(settings: Settings, state: Path, progress: Progress) -> ChatModel:
    """The demo's model, which is kept in the user's own state folder."""
    if settings.model == builtin.SMOLLM2:
        builtin.get(builtin.SMOLLM2, state, progress)
    return bootstrap.load_model(settings.model_copy(update={"state_dir": state}), progress)


def traffic(
    chat: ChatModel, state: Path, console: Console, progress: Progress, *, fresh: bool = False, every: int = 1
) -> list[dict[str, str]]:
    """Messages as in production: prompts with the model's responses; of `every` so many, the first."""
    prompts, topics = everyday("demo")[::every], everyday_topics("demo")[::every]
    conversations = [[{"role": "user", "content": t}] for t in prompts]
    with _bar(console, f"the model answers {len(prompts)} messages", len(prompts)) as advance:
        answers, cached = generate_replies(chat, conversations, state, max_new_tokens=40, fresh=fresh, on_done=advance)
        if cached:
            advance(len(prompts))
    if cached:
        progress("the model's answers come from the cache of an earlier run (--fresh makes them anew)")
    return [
        {"id": f"demo-{i:03}", "tenant": tenant_of(topic), "prompt": prompt, "response": response}
        for i, (topic, prompt, response) in enumerate(zip(topics, prompts, answers, strict=True))
    ]


@contextmanager
def _bar(console: Console, what: str, total: int) -> Iterator[Any]:
    columns = (TextColumn("        {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with ProgressBar(*columns, console=console) as bar:
        task = bar.add_task(what, total=total)

        def advance(n: int) -> None:
            bar.advance(task, n)

        yield advance


def tenant_of(topic: str) -> str:
    """Each topic belongs to one tenant."""
    return TENANTS[hashlib.sha256(topic.encode()).digest()[0] % len(TENANTS)]


def empty(engine: Engine) -> None:
    """Delete the rows of an earlier run; tokens for its web page stay valid."""
    with engine.begin() as connection:
        names = ", ".join(table.name for table in metadata.sorted_tables if table.name != "api_tokens")
        connection.execute(text(f"TRUNCATE {names}"))


def _audit(settings: Settings, n: int, chat: ChatModel, console: Console, progress: Progress) -> DemoResult:
    engine = bootstrap.open_database(settings, progress)
    empty(engine)
    Path(settings.answers_out).unlink(missing_ok=True)
    probes = bootstrap.load_probes(settings, chat, progress)
    with _bar(console, "the worker audits the stream", n) as advance:
        seen = 0

        def on_batch(tally: Tally, _opened: Sequence[Opened], _lag: int | None) -> None:
            nonlocal seen
            advance(tally.messages - seen)
            seen = tally.messages

        with (
            closing(open_source(settings)) as source,
            bootstrap.building_worker(settings, engine, chat, probes, source, on_batch) as worker,
        ):
            tally = worker.run()
    console.print("\n[bold]alerts as they leave the outbox[/] (console sender)")
    deliver_due(engine, make_channels(settings.destinations))
    result = result_of(engine, SOURCE, tally)
    engine.dispose()
    return result


def result_of(engine: Engine, source: str, tally: Tally) -> DemoResult:
    """The demo's traffic of this source as it is in the tables, judged."""
    with engine.connect() as connection:
        # The messages' own order: over several partitions, offsets have none.
        scored = sorted(scored_messages(connection, PROBE, source), key=lambda s: s.message_id or "")
        mitigated = stored_answers(connection, source, "mitigated")
        alerts = list_alerts(connection)
    before = [str((s.text or {}).get("response", "")) for s in scored]
    wrong = [writes_code(t) for t in before]
    labels = np.array(wrong)
    both = bool(labels.any()) and not bool(labels.all())
    return DemoResult(
        scored=scored,
        prompts={str(s.at): (s.text or {})["messages"][-1]["content"] for s in scored},
        wrong=wrong,
        before=before,
        after={i: mitigated[s.at] for i, s in enumerate(scored) if s.at in mitigated},
        alerts=alerts,
        evaluation=evaluate(np.array([s.score for s in scored]), labels) if both else None,
        tally=tally,
    )


def _index(scored: Sequence[ScoredMessage], message: dict[str, Any]) -> int:
    place = (message["partition"], message["offset"])
    return next(i for i, s in enumerate(scored) if (s.at.partition, s.at.offset) == place)


def show(result: DemoResult, n: int, console: Console) -> None:
    """The table of `n` messages, and three answers before and after."""
    flagged = [s.flagged for s in result.scored]
    pairs = list(zip(flagged, result.wrong, strict=True))
    corrected = [i for i in result.after if result.wrong[i]]
    still = sum(writes_code(result.after[i]) for i in corrected)
    table = Table(box=None, show_header=False, title="what the audit found", title_justify="left")
    rate = result.tally.tokens / max(result.tally.scoring_seconds, 1e-9)
    for name, value in (
        ("messages", f"{n}, of which the model answered {sum(result.wrong)} with code that nobody asked for"),
        ("flagged", f"{sum(flagged)}, from the prompt alone, before an answer exists"),
        ("caught", f"{sum(f and w for f, w in pairs)}"),
        ("missed", f"{sum(w and not f for f, w in pairs)}"),
        ("false alarms", f"{sum(f and not w for f, w in pairs)}"),
        ("AUROC", str(result.evaluation.auroc) if result.evaluation else "too few of one kind"),
        ("corrected", f"{len(corrected) - still} of {len(corrected)} caught answers hold no code after mitigation"),
        ("scoring", f"{rate:.0f} tokens/s"),
    ):
        table.add_row(f"[bold]{name}[/]", value)
    console.print()
    console.print(table)
    shown = sorted(corrected, key=lambda i: -result.scored[i].score)[:3]
    for i in shown:
        scored = result.scored[i]
        body = Table(box=None, show_header=False, padding=(0, 1))
        body.add_row("[bold]asked[/]", escape(result.prompts[str(scored.at)]))
        body.add_row("[red]before[/]", _short(result.before[i]))
        body.add_row("[green]after[/]", _short(result.after[i]))
        title = f"score {scored.score:.2f}, threshold {scored.threshold:.2f}, {scored.tenant}"
        console.print(Panel(body, title=title, title_align="left", border_style="dim"))


def _short(answer: str, lines: int = 5) -> str:
    shown = answer.splitlines()[:lines]
    return escape("\n".join(shown)) + (" ..." if len(answer.splitlines()) > lines else "")


def _print_next(console: Console, settings: Settings, picture: Path) -> None:
    own = settings.state_dir
    awry = "awry" if shutil.which("awry") else os.path.relpath(Path(sys.executable).with_name("awry"))
    console.print("\n[bold]next[/]")
    for command, what in (
        (f"{awry} serve --state-dir {own}", "web pages: these alerts, scores and answers in a browser"),
        (f"{awry} alerts --state-dir {own}", "the alerts that this run opened"),
        (f'{awry} db psql --state-dir {own} -c "TABLE scores LIMIT 5"', "every score is a row in PostgreSQL"),
        (
            f"{awry} run --adapter {ADAPTER} --source {picture.parent}/traffic.jsonl",
            "the same worker, as a service would",
        ),
    ):
        console.print(f"  {command}", soft_wrap=True, style="cyan")
        console.print(f"      {what}", style="dim")
