"""`awry study transfer`: directions mapped between models by ridge regression (arXiv 2606.20225)."""

from awry.moved import package_in_place_of

__getattr__ = package_in_place_of(__name__)
