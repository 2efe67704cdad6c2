"""The plots of ``bench/load.py``: cores over participants, cores over audience.

What was found comes as it lies in the JSON file: keys are text.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def draw(found: Mapping[str, Any], path: Path) -> None:
    """Draw what was measured of growth, peers and audience; nothing if it was none of them."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "calliope"
    from matplotlib import pyplot

    panels = [name for name in ("growth", "audience") if name in found]
    if not panels:
        return
    figure, axes = pyplot.subplots(1, len(panels), figsize=(5.5 * len(panels), 3.6), squeeze=False)
    for axis, name in zip(axes[0], panels, strict=True):
        if name == "growth":
            grown = found["growth"]
            axis.plot(list(map(int, grown)), list(grown.values()), "o-", label="Calliope")
            if peers := found.get("peers"):
                theirs = [pair[1] for pair in peers.values()]
                axis.plot(list(map(int, peers)), theirs, "s--", label="one encode per viewer")
                axis.legend()
            axis.set_xlabel("participants")
        else:
            audience = found["audience"]
            packets = [point["packets_s"] for point in audience.values()]
            axis.plot(packets, [point["cores"] for point in audience.values()], "o-")
            axis.set_xlabel("packets a second to the audience")
        axis.set_ylabel("cores of the server")
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
