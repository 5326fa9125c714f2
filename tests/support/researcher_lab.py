"""What a researcher has at hand: archives, weights, a pack, plans, two experts, and bad files."""

from __future__ import annotations

from pathlib import Path

from support.made_up_archives import make_archive
from support.models_cli import run
from support.packs import make_tiny_pack

PLAN = """
title = "small"
folds = 2
data = { folder = "archive", kind = "isruc", pages = 5 }
[[arm]]
name = "clip"
family = "tuned"
weights = "clip"
"""


def make_lab(root: Path) -> Path:
    """Lay all of it, and files that are wrong, into a folder."""
    make_archive("isruc", root / "archive", people=2, pages=6)
    make_archive("isruc", root / "one", people=1, pages=6)
    assert run(["tiny", "clip", str(root / "clip")]) == 0
    make_tiny_pack(root / "pack", family="contrastive", recipe="clinical-448x224")
    (root / "empty").mkdir()
    (root / "full").mkdir()
    (root / "full" / "mine.txt").write_text("mine")
    (root / "adapter").mkdir()
    (root / "adapter" / "adapter_config.json").write_text('{"base_model_name_or_path": "/nowhere"}')
    (root / "broken.toml").write_text("steps = [")
    (root / "unknown.toml").write_text("stepps = 3")
    (root / "broken.onnx").write_bytes(b"no graph")
    (root / "plan.toml").write_text(PLAN)
    (root / "folds.toml").write_text(PLAN.replace("folds = 2", "folds = 9"))
    (root / "arm.toml").write_text(PLAN.replace('family = "tuned"', 'family = "tunned"'))
    (root / "draft.toml").write_text('name = "mine"')
    for expert in ("a", "b"):
        (root / expert).mkdir()
        (root / expert / "n1.csv").write_text("stage\nW\nN2\nN2\n")
    return root
