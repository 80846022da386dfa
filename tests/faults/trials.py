"""The number of trials of the slow tests of faults: FAULT_TRIALS, or a number that takes a few minutes."""

import os

# Kills of real runs; cheaper trials are run several times as often.
TRIALS = int(os.environ.get("FAULT_TRIALS", "50"))
