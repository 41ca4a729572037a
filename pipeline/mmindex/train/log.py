"""The log of a training run, one JSON object per line, and its curves as an image."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure


def plot_run(entries: Sequence[LogEntry], path: Path) -> None:
    """Plot loss, and recall on the held-out images, over the steps, as a PNG file."""
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
    right.set(title="Recall on held-out images, %", xlabel="step", ylim=(0, 100))
    right.legend(loc="lower right", fontsize="small")
    for axes in (left, right):
        axes.grid(alpha=0.25)
    figure.savefig(path, dpi=110)


LogEntry = dict[str, float]


class TrainLog:
    """Appends to ``path``, after dropping what a killed run logged after its last checkpoint."""

    def __init__(self, path: Path, steps_done: int) -> None:
        self.entries: list[LogEntry] = []
        if steps_done and path.is_file():
            lines = path.read_text(encoding="utf-8").splitlines()
            # A killed run may leave an incomplete last line; complete lines end with a brace.
            entries = [json.loads(line) for line in lines if line.endswith("}")]
            self.entries = [entry for entry in entries if entry["step"] <= steps_done]
        text = "".join(json.dumps(entry) + "\n" for entry in self.entries)
        path.write_text(text, encoding="utf-8")
        self._path = path

    def write(self, entry: LogEntry) -> None:
        """Add one line and flush it."""
        self.entries.append(entry)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
