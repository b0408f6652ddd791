"""Commands on what is stored and configured: alerts, rules, notifications, tokens, the database, dashboards."""
