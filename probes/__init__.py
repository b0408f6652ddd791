"""The science of awry: where to read a model, directions, scores, steering, calibration, probe files.

Imports nothing from `monitor`, `storage` or `alerts`: it is useful in a notebook with no database.
"""
