"""Plain pylsl outlets in a process of their own, as somebody else's program would make them."""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any

import numpy as np
import pylsl

from support.orphans import die_with_parent


def make(spec: dict[str, Any]) -> pylsl.StreamOutlet:
    """Make an outlet as described."""
    rate = spec["rate"] if spec["declared_rate"] is None else spec["declared_rate"]
    count = 1 if spec["marker"] else len(spec["labels"])
    info = pylsl.StreamInfo(
        spec["name"],
        spec["type"],
        count,
        0.0 if spec["marker"] else rate,
        "string" if spec["marker"] else spec["format"],
        spec["source_id"],
    )
    labels = spec["labels"] if spec["described"] is None else spec["described"]
    if labels and not spec["marker"]:
        info.desc().append_child_value("padding", "x" * spec["padding"])
        channels = info.desc().append_child("channels")
        for label in labels:
            channel = channels.append_child("channel")
            channel.append_child_value("label", label)
            if spec["unit"] is not None:
                channel.append_child_value("unit", spec["unit"])
            channel.append_child_value("type", "EEG")
    return pylsl.StreamOutlet(info)


def read_marks(outlet: pylsl.StreamOutlet) -> None:
    """Send every line of standard input."""
    for line in sys.stdin:
        outlet.push_sample([line.rstrip("\n")])


def main() -> None:
    """Run until killed."""
    die_with_parent()
    specs: list[dict[str, Any]] = json.loads(sys.argv[1])
    outlets = [make(spec) for spec in specs]
    for spec, outlet in zip(specs, outlets, strict=True):
        if spec["marker"]:
            threading.Thread(target=read_marks, args=(outlet,), daemon=True).start()
    began = pylsl.local_clock()
    print(began, flush=True)
    sent = [0] * len(specs)
    noise = np.random.default_rng(0)
    while True:
        passed = pylsl.local_clock() - began
        for index, (spec, outlet) in enumerate(zip(specs, outlets, strict=True)):
            due = int(passed * spec["rate"]) - sent[index]
            if spec["marker"] or due < 8:
                continue
            values = noise.normal(0.0, 20.0, (due, len(spec["labels"])))
            values[:, 0] = np.arange(due) + spec["start"] + sent[index]
            sent[index] += due
            last = began + sent[index] / spec["rate"]
            if spec["clock"] == "unix":
                last += time.time() - pylsl.local_clock()
            kind = {"float32": np.float32, "int16": np.int16}[spec["format"]]
            chunk = np.ascontiguousarray(values.astype(kind))
            if spec["clock"] == "stuck":
                outlet.push_chunk(chunk, [5.0] * due)
            else:
                outlet.push_chunk(chunk, last)
        time.sleep(0.01)


if __name__ == "__main__":
    main()
