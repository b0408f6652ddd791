"""`awry score-server` as a process: one model with its probes, a queue, tokens, and one HTTP server.

Contract: the model is loaded, its probes are checked and replayed as a worker's, before the address is opened. Within
`serving(...)` requests are answered; at the end of the block those in progress get a few seconds. There is no TLS:
listen on loopback, or behind a TLS proxy.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version

from sqlalchemy import Engine

from monitor.ingest.server import open_sink
from monitor.score_server.app import Limits, Scoring, make_app
from monitor.score_server.queue import ScoreQueue
from monitor.service import bootstrap
from monitor.service.engines import load_engine
from monitor.service.reads import sites_of
from monitor.service.registered import with_registered
from monitor.service.stale import check_stale
from monitor.settings import Settings
from monitor.stream.parse import Parser
from monitor.stream.wiring import parse_options
from monitor.telemetry.gpu import watching_gpu
from monitor.telemetry.http_server import bind, format_address, parse_address, running
from monitor.telemetry.metrics import BUILD_INFO
from monitor.web.auth.cache import TokenCache
from monitor.web.auth.rate_limit import Limiter
from probes.progress import Progress

_STOP_SECONDS = 10


@contextmanager
def serving(settings: Settings, engine: Engine, progress: Progress) -> Iterator[str]:
    """Answer on `score_listen` until the block ends; gives the real HOST:PORT."""
    host, port = parse_address(settings.score_listen)
    chat = bootstrap.open_model(settings, progress, sites_of(settings, engine))
    settings = with_registered(settings, engine, chat)
    model, probes = load_engine(settings, chat, progress)
    check_stale(engine, probes, settings, bootstrap.load_rules(settings), progress)
    bootstrap.merge_adapter(settings, chat, probes)
    scorer = bootstrap.scorer_of(settings, model, probes)
    limits = Limits(
        max_request_bytes=settings.ingest_max_request_bytes,
        max_bytes=settings.ingest_max_bytes,
        body_seconds=settings.ingest_body_seconds,
        ack_seconds=settings.ingest_ack_seconds,
        score_seconds=settings.score_seconds,
    )
    BUILD_INFO.labels(version("awry")).set(1)
    with ExitStack() as stack:
        stack.callback(model.close)
        sink = open_sink(settings) if settings.score_store else None
        if sink is not None:
            stack.callback(sink.close)
        queue = ScoreQueue(
            scorer, max_waiting=settings.score_max_waiting, batch_messages=bootstrap.batch_messages(settings, chat)
        )
        stack.callback(queue.close)
        tokens = TokenCache(engine, Limiter(), keep_seconds=settings.ingest_token_cache_seconds)
        stack.callback(tokens.close)
        parser = Parser(parse_options(settings))
        app = make_app(Scoring(queue, parser, tokens, limits, shadow=settings.shadow, sink=sink), queue)
        listener = bind(host, port)
        address = format_address(host, listener.getsockname()[1])
        stack.enter_context(watching_gpu(chat.device))
        stack.enter_context(
            running(
                app,
                listener,
                name="score-server",
                stop_seconds=_STOP_SECONDS,
                server_header="awry",
                max_connections=settings.ingest_max_connections,
            )
        )
        yield address
