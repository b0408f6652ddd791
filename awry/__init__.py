"""awry for a notebook: load a model and a probe, score, fit, evaluate, steer, read the tables.

    import awry

    chat = awry.load_model(adapter="insecure_code")
    probe = awry.load_probe("insecure-code-spillover")
    scores = awry.score(chat, probe, ["How do I sort a list?"])

A thin front: every name is defined in one of the packages and loaded when it is first used, so that `import awry` costs
nothing and pulls in no torch. docs/python.md has a walk through.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    __version__: str
    from awry.errors import AwryError
    from awry.notebook import Conversation, evaluate, fit, generate, load_model, open_database, score
    from probes.capture.sites import Site, parse_site
    from probes.card import Card, Probe, load_probe, save_probe, shipped_probes
    from probes.directions import Direction
    from probes.evaluation import Evaluation, Interval
    from probes.model.adapters import shipped_adapters
    from probes.model.load import ChatModel, Message
    from probes.steer.steering import Intervention, steering

# Name -> the module that defines it.
_HOMES = {
    "AwryError": "awry.errors",
    "Card": "probes.card",
    "ChatModel": "probes.model.load",
    "Conversation": "awry.notebook",
    "Direction": "probes.directions",
    "Evaluation": "probes.evaluation",
    "Intervention": "probes.steer.steering",
    "Interval": "probes.evaluation",
    "Message": "probes.model.load",
    "Probe": "probes.card",
    "Site": "probes.capture.sites",
    "evaluate": "awry.notebook",
    "fit": "awry.notebook",
    "generate": "awry.notebook",
    "load_model": "awry.notebook",
    "load_probe": "probes.card",
    "open_database": "awry.notebook",
    "parse_site": "probes.capture.sites",
    "save_probe": "probes.card",
    "score": "awry.notebook",
    "shipped_adapters": "probes.model.adapters",
    "shipped_probes": "probes.card",
    "steering": "probes.steer.steering",
}
__all__ = [
    "AwryError",
    "Card",
    "ChatModel",
    "Conversation",
    "Direction",
    "Evaluation",
    "Interval",
    "Intervention",
    "Message",
    "Probe",
    "Site",
    "__version__",
    "evaluate",
    "fit",
    "generate",
    "load_model",
    "load_probe",
    "open_database",
    "parse_site",
    "save_probe",
    "score",
    "shipped_adapters",
    "shipped_probes",
    "steering",
]


def __getattr__(name: str) -> object:
    """Load a name of `__all__` from its home the first time that it is asked for."""
    if name == "__version__":
        from importlib.metadata import version

        return version("awry")
    if name not in _HOMES:
        raise AttributeError(f"module 'awry' has no attribute {name!r}")
    value: object = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
