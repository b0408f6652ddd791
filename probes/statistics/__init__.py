"""What a figure with its interval is worth: its rank among random draws, and what its n could have seen.

The figures and their intervals are `probes.evaluation`'s.
"""
