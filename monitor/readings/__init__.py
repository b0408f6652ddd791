"""Readings: what a serving engine measured of its own requests, as records that `awry run --readings` takes."""
