"""Helpers for tests of models: tiny ones, planted truths, finished studies."""
