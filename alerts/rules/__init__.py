"""Rules: what turns scores into alerts. The model of a rule, its TOML file, the queries it asks, and its backtest."""

from awry.moved import package_in_place_of

__getattr__ = package_in_place_of(__name__)
