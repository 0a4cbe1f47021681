"""One soft prompt trained on one frozen model; which models, and in which order, is `stages`' business."""

__version__ = "0.1.0"
