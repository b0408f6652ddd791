"""Rules: what turns scores into alerts. The model of a rule, its TOML file, the queries it asks, and its backtest."""
