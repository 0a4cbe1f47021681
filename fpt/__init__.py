"""One soft prompt trained on one frozen model; which models, and in which order, is `stages`' business."""

import logging
import os

__version__ = "0.1.0"

# OpenMP reads it when torch is loaded. By default its threads wait for each other by spinning; where another program
# has one of two cores, eight updates of the embedded model took 26 s so, 1.2 s with threads that sleep, 1.1 s with one.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# PEFT comes with transformers' Adafactor, and imports bitsandbytes, which looks for kernels that no run uses.
logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(lambda record: record.levelno >= logging.ERROR)
