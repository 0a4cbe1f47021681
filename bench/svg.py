"""Writes a figure as the text of an SVG: white behind it, and the same bytes every time."""

from io import BytesIO

import matplotlib
from matplotlib.figure import Figure


def text_of(figure: Figure, name: str) -> str:
    """The figure as SVG, whose identifiers are made from `name`."""
    stream, metadata = BytesIO(), dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(stream, format="svg", facecolor="white", metadata=metadata)
    return stream.getvalue().decode()
