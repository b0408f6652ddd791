"""`awry kafka`: the embedded Apache Kafka."""

from __future__ import annotations

import typer

from monitor.cli import options as o
from monitor.cli.output import say
from monitor.cli.tree import Commands

commands = Commands()


@commands.command()
def kafka(
    port: o.Port = 9092,
    topic: o.Topic = None,
    partitions: o.Partitions = 4,
    state_dir: o.StateDir = None,
) -> None:
    """Run the embedded Apache Kafka in the foreground; Ctrl-C stops it cleanly.

    Its data is in the folder kafka of the state folder. Prints the address of the broker when it is up.
    """
    from monitor.service.run import until_signal
    from monitor.settings import load_settings
    from monitor.stream.kafka.client import Cluster
    from monitor.stream.kafka.embedded import Broker, running

    settings = load_settings(state_dir=state_dir)
    broker = Broker(settings.state_dir / "kafka", port=port, partitions=partitions)
    with until_signal() as stopped, running(broker, say):
        Cluster(broker.address).create_topics(topic or [], partitions)
        typer.echo(broker.address)
        say("Kafka is up; Ctrl-C stops it")
        while not stopped(1.0):
            broker.check()
