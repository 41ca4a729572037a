"""The course of a training run as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from mmindex.train.log import LogEntry


def plot_run(entries: Sequence[LogEntry], path: Path) -> None:
    """Loss, and recall on the held-out pictures, over the steps, as a PNG file."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    losses = [(entry["step"], entry["loss"]) for entry in entries if "loss" in entry]
    left.plot(*zip(*losses, strict=True), color="#1f6f8b", linewidth=1)
    left.set(title="Contrastive loss", xlabel="step", ylim=(0, None))
    tested = [entry for entry in entries if "t2i_r@1" in entry]
    for key, label, style in (
        ("t2i_r@1", "text to image R@1", "-"),
        ("t2i_r@10", "text to image R@10", "--"),
        ("i2t_r@1", "image to text R@1", "-"),
        ("i2t_r@10", "image to text R@10", "--"),
    ):
        colour = "#b5495b" if key.startswith("t2i") else "#3f7d4e"
        steps = [entry["step"] for entry in tested]
        right.plot(steps, [entry[key] for entry in tested], style, color=colour, label=label)
    right.set(title="Recall on held-out pictures, %", xlabel="step", ylim=(0, 100))
    right.legend(loc="lower right", fontsize="small")
    for axes in (left, right):
        axes.grid(alpha=0.25)
    figure.savefig(path, dpi=110)
