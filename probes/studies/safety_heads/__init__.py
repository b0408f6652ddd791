"""`awry study safety-heads`: Ships and Sahara with their controls (arXiv 2410.13708)."""

from awry.moved import package_in_place_of

__getattr__ = package_in_place_of(__name__)
