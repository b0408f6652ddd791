"""`awry serve`: authentication, the HTTP API and the web pages on one address."""

from awry.moved import package_in_place_of

__getattr__ = package_in_place_of(__name__)
