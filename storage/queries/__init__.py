"""Read-only queries, by what they are about."""

from awry.moved import package_in_place_of

__getattr__ = package_in_place_of(__name__)
