"""`awry score-server`: an inline check over HTTP."""

from __future__ import annotations

from monitor.cli import options as o
from monitor.cli.inputs import opened_by
from monitor.cli.output import say
from monitor.cli.tree import Commands

commands = Commands()


@commands.command("score-server")
def score_server(
    score_listen: o.ScoreListen = None,
    model: o.Model = None,
    adapter: o.Adapter = None,
    scale: o.Scale = None,
    engine: o.Engine = None,
    vllm_args: o.VllmArgs = None,
    chat_template: o.ChatTemplate = None,
    probes: o.Probes = None,
    score_store: o.ScoreStore = None,
    database_url: o.DatabaseUrl = None,
    state_dir: o.StateDir = None,
) -> None:
    """Answer POST /api/v1/score with the verdict on what is sent. Ctrl-C ends it.

    Takes messages in any format that awry reads. Requests need a token: awry tokens create NAME --scope score. Model
    and probes are those of awry run, checked and replayed at the start. Nothing is stored.
    """
    from monitor.score_server.server import serving
    from monitor.service.run import until_signal
    from monitor.settings import load_settings
    from monitor.telemetry.logs import configure

    settings = load_settings(
        score_listen=score_listen,
        model=model,
        adapter=adapter,
        scale=scale,
        engine=engine,
        vllm_args=tuple(vllm_args or ()) or None,
        chat_template=chat_template,
        probes=tuple(probes or ()) or None,
        score_store=score_store,
        database_url=database_url,
        state_dir=state_dir,
    )
    configure()
    with opened_by(settings) as database, until_signal() as stopped, serving(settings, database, say) as address:
        say(f"scores messages on http://{address}/api/v1/score")
        while not stopped(3600):
            pass
