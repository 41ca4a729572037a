"""The log of a training run: one JSON object a line."""

from __future__ import annotations

import json
from pathlib import Path

LogEntry = dict[str, float]


class TrainLog:
    """Appends to ``path``, after dropping what a killed run logged beyond its last checkpoint."""

    def __init__(self, path: Path, steps_done: int) -> None:
        self.entries: list[LogEntry] = []
        if steps_done and path.is_file():
            lines = path.read_text(encoding="utf-8").splitlines()
            # A killed run may leave half a line at the end; whole lines end with a brace.
            entries = [json.loads(line) for line in lines if line.endswith("}")]
            self.entries = [entry for entry in entries if entry["step"] <= steps_done]
        text = "".join(json.dumps(entry) + "\n" for entry in self.entries)
        path.write_text(text, encoding="utf-8")
        self._path = path

    def write(self, entry: LogEntry) -> None:
        """Add one line; it is on its way to the disk when this returns."""
        self.entries.append(entry)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
