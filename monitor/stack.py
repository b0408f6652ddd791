"""`awry stack`: the demo's traffic through all processes on one machine, each as it would run in production.

An embedded Kafka, an embedded PostgreSQL, a worker (`awry run`), a sender (`awry send`) and the page (`awry serve`),
each a process of its own. The demo's 200 messages are produced into a topic; when all are in the tables, the demo's
table is printed from them. The stack has a database and a topic of its own in the state
folder (`stack/`), emptied at each start.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from kafka import KafkaProducer
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine

from monitor import demo
from monitor.console import make_console
from monitor.errors import MonitorError
from monitor.service import bootstrap
from monitor.service.policy import Tally
from monitor.service.run import until_signal
from monitor.settings import Settings
from monitor.stream.kafka.client import Cluster
from monitor.stream.kafka.embedded import Broker, free_port, running
from storage.queries.messages import status_counts

TOPIC = "awry.traffic"
VERDICTS, ANSWERS, DEAD = "awry.verdicts", "awry.answers", f"{TOPIC}.dead-letters"
PARTITIONS = 4
_WORKER_SECONDS = 600.0
_STOP_SECONDS = 40.0


class StackError(MonitorError):
    """A process of the stack exited, or the traffic was not scored in time."""


def run_stack(base: Settings, out: Path, *, once: bool) -> None:
    """Start everything, stream the demo's traffic, print the table; wait for Ctrl-C unless `once`."""
    console = make_console(markup=True)
    started = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)

    def progress(line: str) -> None:
        console.print(f"[dim]{time.monotonic() - started:5.1f} s[/]  {line}")

    settings = demo.demo_settings(base, out).model_copy(update={"state_dir": base.state_dir / "stack"})
    chat = demo.load_model(settings, base.state_dir, progress)
    traffic = demo.traffic(chat, base.state_dir, console, progress)
    del chat
    with until_signal() as stopped, ExitStack() as parts:
        # The jars are fetched once for `awry kafka` and for this.
        broker = Broker(settings.state_dir / "kafka", jar_folder=base.state_dir / "kafka" / "jars")
        broker.clear()
        progress("starting Apache Kafka")
        parts.enter_context(running(broker, progress))
        Cluster(broker.address).create_topics([TOPIC, VERDICTS, ANSWERS, DEAD], PARTITIONS)
        _share_models(base.state_dir, settings.state_dir)
        engine = bootstrap.open_database(settings, progress)
        parts.callback(engine.dispose)
        demo.empty(engine)
        address = f"127.0.0.1:{free_port()}"
        environment = _environment(settings, broker.address, address, out)
        page = f"127.0.0.1:{free_port()}"
        progress("starting the worker, the sender and the page")
        worker = parts.enter_context(_part("worker", ["run", "--from", "earliest"], environment, out))
        sender = parts.enter_context(_part("sender", ["send"], environment | {"AWRY_LISTEN": ""}, out))
        # Nothing here is anybody's, and it is looked at on this machine.
        looked_at = {"AWRY_LISTEN": page, "AWRY_PAGE_OPEN": "loopback"}
        server = parts.enter_context(_part("page", ["serve"], environment | looked_at, out))
        processes = {"worker": worker, "sender": sender, "page": server}
        _produce(broker.address, traffic)
        progress(f"{len(traffic)} messages are in topic {TOPIC}")
        _wait(engine, len(traffic), processes, stopped, out)
        demo.show(demo.result_of(engine, TOPIC, _tally(address)), len(traffic), console)
        if once:
            return
        console.print("\n[bold]the stack is up[/], Ctrl-C takes it down")
        for name, what in (
            ("page", f"http://{page}"),
            ("Kafka", broker.address),
            ("metrics", f"http://{address}/metrics"),
            ("logs", f"{out}/stack-*.log"),
        ):
            console.print(f"  {name:10} {what}", soft_wrap=True)
        while not stopped(1.0):
            _check(processes, out)
    progress("everything is down")


def _share_models(base: Path, own: Path) -> None:
    """The worker uses the model that exists instead of building it again."""
    own.mkdir(parents=True, exist_ok=True)
    if not (own / "models").exists():
        (own / "models").symlink_to((base / "models").resolve())


def _environment(settings: Settings, address: str, listen: str, out: Path) -> dict[str, str]:
    """Nothing of the owner's own settings: neither the database nor a destination may be theirs."""
    nothing = out / "stack.toml"
    nothing.write_text("")
    own = {
        "CONFIG": str(nothing.resolve()),
        "DESTINATIONS": json.dumps([{"name": "console", "kind": "console"}]),
        "STATE_DIR": str(settings.state_dir),
        "MODEL": str(settings.model),
        "ADAPTER": settings.adapter or "",
        "PROBES": json.dumps(settings.probes),
        "SOURCE": f"kafka:{TOPIC}",
        "KAFKA_BOOTSTRAP": address,
        "PRIVACY": settings.privacy,
        "MITIGATE": settings.mitigate,
        "VERDICTS_OUT": f"kafka:{VERDICTS}",
        "ANSWERS_OUT": f"kafka:{ANSWERS}",
        "BATCH_MESSAGES": str(settings.batch_messages),
        "LISTEN": listen,
        "LOGS": "json",
    }
    others = {name: value for name, value in os.environ.items() if not name.startswith("AWRY_")}
    return others | {f"AWRY_{name}": value for name, value in own.items()}


@contextmanager
def _part(
    name: str, arguments: Sequence[str], environment: dict[str, str], out: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """An awry process whose output goes to a log; it drains when the stack ends."""
    command = [sys.executable, "-c", "from monitor.cli.app import main; main()", *arguments]
    given = {n: v for n, v in environment.items() if not (n.startswith("AWRY_") and v == "")}
    with (out / f"stack-{name}.log").open("wb") as log:
        process = subprocess.Popen(command, env=given, stdout=log, stderr=log, start_new_session=True)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _produce(address: str, traffic: Sequence[dict[str, str]]) -> None:
    producer = KafkaProducer(**Cluster(address).options())
    for message in traffic:
        producer.send(TOPIC, json.dumps(message).encode(), key=message["id"].encode())
    producer.flush(timeout=30)
    producer.close()


def _wait(
    engine: Engine,
    number: int,
    processes: dict[str, subprocess.Popen[bytes]],
    stopped: Callable[[float], bool],
    out: Path,
) -> None:
    until = time.monotonic() + _WORKER_SECONDS
    while time.monotonic() < until:
        _check(processes, out)
        with engine.connect() as connection:
            if sum(status_counts(connection, TOPIC).values()) >= number:
                return
        if stopped(0.5):
            raise KeyboardInterrupt
    raise StackError(f"the worker did not score {number} messages within {_WORKER_SECONDS:g} s; see {out}/stack-*.log")


def _check(processes: dict[str, subprocess.Popen[bytes]], out: Path) -> None:
    for name, process in processes.items():
        if process.poll() is not None:
            raise StackError(f"the {name} exited (status {process.returncode}); see {out}/stack-{name}.log")


def _tally(address: str) -> Tally:
    """What the worker counted, from its metrics."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as response:
        text = response.read().decode()
    samples = {
        (sample.name, sample.labels.get("stage")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    return Tally(
        tokens=int(samples.get(("awry_tokens_total", None), 0)),
        scoring_seconds=samples.get(("awry_stage_seconds_sum", "forward"), 0.0),
    )
