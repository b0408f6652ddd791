"""Every error that `probes` raises on purpose. Messages name the field and the fix, and never hold prompt text.

ProbesError
├── ModelError            a model, tokenizer or adapter that cannot be used
│   └── LayoutError       a model whose decoder blocks were not found
├── SiteError             a site or a head that this model does not have
├── DirectionError        a direction that is zero, not finite or of the wrong width
├── DataError             labelled data that cannot be fitted or evaluated
├── ProbeFileError        a probe file that is broken
│   └── ProbeMismatchError  a probe made for another model, adapter, scale or template
├── SteeringError         an intervention that cannot be applied
└── EngineError           an engine that is not there, or cannot give what a probe reads
    └── EngineLostError     an engine that ended while it ran
"""

from awry.errors import AwryError


class ProbesError(AwryError):
    """Base of all errors raised by `probes`."""


class ModelError(ProbesError):
    """A model, tokenizer or adapter that cannot be used."""


class LayoutError(ModelError):
    """A model whose decoder blocks, norm or attention projections were not found."""


class SiteError(ProbesError):
    """A site or a head that this model does not have."""


class DirectionError(ProbesError):
    """A direction that is zero, not finite or of the wrong width."""


class DataError(ProbesError):
    """Labelled data that cannot be fitted or evaluated."""


class ProbeFileError(ProbesError):
    """A probe file that is broken or incomplete."""


class ProbeMismatchError(ProbeFileError):
    """A probe made for another model, adapter, scale, template or numeric stack."""


class SteeringError(ProbesError):
    """An intervention that cannot be applied to this model."""


class EngineError(ProbesError):
    """An engine that is not there, is set up wrongly, or cannot give what a probe reads."""


class EngineLostError(EngineError):
    """An engine that ended while it ran: no message can be scored any more."""
