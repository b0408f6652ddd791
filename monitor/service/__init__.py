"""The worker: read, score, store, commit; and the loops that run beside it."""

from awry.moved import package_in_place_of

__getattr__ = package_in_place_of(__name__)
