"""The science of awry: where to read a model, directions, scores, steering, calibration, probe files.

Imports nothing from `monitor`, `storage` or `alerts`: it is useful in a notebook with no database.
"""

import os

from awry import moved

moved.install()

# Threads that wait spin by default: as soon as another process needs a core, they fight it. Measured on two shared
# cores, (50, 576) @ (576, 1536): 6 GFLOP/s spinning, 44 passive. Read by the OpenMP runtime when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
