"""How often the slow tests of faults try: a few minutes' worth, or as often as FAULT_TRIALS says."""

import os

# Kills of real runs; what costs less is tried a multiple of that.
TRIALS = int(os.environ.get("FAULT_TRIALS", "50"))
