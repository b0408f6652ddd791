"""Helpers for tests of the API, the page and the dashboards."""
