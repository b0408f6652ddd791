"""The `awry` command: `app` is its entry point, then one file a noun."""

from awry.moved import package_in_place_of

__getattr__ = package_in_place_of(__name__)
