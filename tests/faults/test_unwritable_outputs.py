"""Every command that writes, on a full disk and on one only to be read: real ones, mounted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hypnocast.commands.common import run_app
from support.broken_disks import BrokenDisk, State, broken_disk
from support.made_up_archives import make_archive
from support.needs import need_module
from support.researcher_lab import make_lab

for name in ("torch", "transformers", "peft", "onnxruntime", "distributed"):
    need_module(name)

NIGHT = "latest --config lab.toml"
TUNE = "--steps 1 --batch 1"
RESUMED = {
    f"hypnocast-models finetune clip npz {{out}} {TUNE}",
    f"hypnocast-models learn clip npz {{out}} --held-out subject01 --name mine {TUNE}",
    "hypnocast-models stage archive --out {out} --pack ./pack --workers 1",
    "hypnocast-models draw archive --out {out} --workers 1",
    "hypnocast-models experiment plan.toml . --packs . --out {out} --report {out}/report",
    "hypnocast replay archive/1/1.rec --journal {out}",
}
"""They go on from what they have: whole files may stay."""
WHOLE = {
    "hypnocast-models tiny clip {out}",
    "hypnocast-models export clip {out} --name mine",
    "hypnocast-models evaluate ./pack archive --out {out}/figures.json",
    "hypnocast-models evaluate ./pack archive --report {out}/page.html",
    "hypnocast-models rolling ./pack archive --hop 30 --out {out}/rolling.json",
    "hypnocast-models compare a b --html {out}/page.html",
    "hypnocast-models pack calibrate ./pack archive {out} --version 0.2.0",
    "hypnocast-models pack edit ./pack {out} --set licence=MIT",
    "hypnocast-models weights smolvlm-256m {out} --layers 1",
    "hypnocast schema {out}",
    "hypnocast page archive/1/1.rec 0 --output {out}.png",
    "hypnocast pack to-triton ./pack {out}",
    f"hypnocast export {NIGHT} --output {{out}}",
    f"hypnocast export {NIGHT} --format csv --output {{out}}",
    f"hypnocast report {NIGHT} --output {{out}}.html",
    "hypnocast why latest 0 --config lab.toml --output {out}.html --tape archive/1/1.rec",
    f"hypnocast corrections {NIGHT} --scorer a --pages {{out}} --tape archive/1/1.rec",
}
"""They leave nothing of what could not be finished."""
HEAVY = ("export clip", "--report", "draw", "stage", "learn", "calibrate", "corrections")
"""Much work before the first byte is written."""
LARGE = ("tiny", "finetune", "export clip", "draw", "smolvlm-256m")
"""Some of it fits on a disk that is nearly full, and all of it does not."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from hypnocast.cli import app

    root = make_lab(tmp_path_factory.mktemp("lab"))
    make_archive("npz", root / "npz", people=2, pages=6)
    (root / "lab.toml").write_text(
        f'[daemon]\nstate_dir = "{root / "state"}"\n[pack]\nname = "{root / "pack"}"\n'
    )
    night = str(root / "archive/1/1.rec")
    config = ["--config", str(root / "lab.toml")]
    replayed = ["replay", night, "--journal", str(root / "state"), *config]
    assert run_app(app, "hypnocast", replayed) == 0
    scored = ["--add", str(root / "a" / "n1.csv"), "--scorer", "a", "--offset", "0"]
    assert run_app(app, "hypnocast", ["corrections", "latest", *scored, *config]) == 0
    return root


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokenDisk]:
    with broken_disk(tmp_path_factory.mktemp("place") / "disk") as made:
        yield made


def cases() -> Iterator[object]:
    for line in sorted(WHOLE | RESUMED):
        large = any(word in line for word in LARGE)
        for state in ("full", "read-only", *(["nearly full"] if large else ())):
            heavy = state == "nearly full" or any(word in line for word in HEAVY)
            slow = heavy and state != "read-only"
            marks = (pytest.mark.long, pytest.mark.timeout(600)) if slow else ()
            yield pytest.param(line, state, marks=marks, id=f"{line} [{state}]")


def times_of(lab: Path) -> dict[Path, int]:
    """When each file was written; SQLite touches its own when they are read."""
    files = [path for path in lab.rglob("*") if path.is_file() and path.parent.name != "state"]
    return {path: path.stat().st_mtime_ns for path in files}


@pytest.mark.parametrize(("line", "state"), list(cases()))
def test_one_line_names_the_output_and_nothing_is_half_written(
    lab: Path, disk: BrokenDisk, line: str, state: State
) -> None:
    before = times_of(lab)
    found = disk.run(line, state, lab)
    program = line.partition(" ")[0]
    [complaint] = found.complaints
    assert complaint.startswith(f"{program}: {disk.folder}"), complaint
    assert found.status == 1
    words = "the disk can only be read. Name" if state == "read-only" else "the disk is full. Make"
    assert f"cannot be written: {words}" in complaint
    assert str(lab) not in complaint
    if line in WHOLE:
        assert found.left == ()
    assert not [one for one in found.left if "part" in Path(one).name]
    assert times_of(lab) == before
