"""What the project asks of its own code: types, style, layers."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from support.needs import need_module
from support.vocabulary import left

ROOT = Path(__file__).resolve().parents[1]
CODE = ("daemon", "models", "tests")

_BELOW = ("hypnocast.core", "hypnocast.ports", "hypnocast.stagers", "hypnocast.config")

LAYERS = {
    "hypnocast.core": (),
    "hypnocast.stagers": ("hypnocast.core",),
    "hypnocast.ports": ("hypnocast.core",),
    "hypnocast.config": ("hypnocast.core", "hypnocast.ports"),
    "hypnocast.dashboard": ("hypnocast.core", "hypnocast.ports", "hypnocast.config"),
    "hypnocast.client": ("hypnocast.core", "hypnocast.ports", "hypnocast.dashboard"),
    "hypnocast.simulate": ("hypnocast.core", "hypnocast.ports"),
    "hypnocast.bridge": ("hypnocast.core", "hypnocast.ports"),
    "hypnocast.live.bed": _BELOW,
    "hypnocast.live.staging": (*_BELOW, "hypnocast.live.bed"),
    "hypnocast.live.publishing": (*_BELOW, "hypnocast.live.bed", "hypnocast.live.staging"),
    "hypnocast.live.explaining": (
        *_BELOW,
        "hypnocast.live.bed",
        "hypnocast.live.staging",
        "hypnocast.live.publishing",
    ),
    "hypnocast.live.service": (
        *_BELOW,
        "hypnocast.live",
        "hypnocast.dashboard",
        "hypnocast.simulate",
    ),
    "hypnocast.nights": (*_BELOW, "hypnocast.live"),
    "hypnocast.bench": (*_BELOW, "hypnocast.live", "hypnocast.nights", "hypnocast.simulate"),
}
"""Package → what it may import of Hypnocast, beside itself and the errors."""

NOT_IN_THE_DAEMON = frozenset({"torch", "transformers", "mne", "matplotlib", "hypnocast_models"})
PEER = ROOT / "daemon" / "hypnocast" / "bench" / "matplotlib_drawing.py"
"""``hypnocast bench`` measures drawing against matplotlib, where somebody has installed it."""


def _complaints(*arguments: str) -> str:
    run = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=560.0,
    )  # fmt: skip
    return "" if run.returncode == 0 else run.stdout + run.stderr


@pytest.mark.timeout(600)
def test_every_type_is_right_in_code_and_tests() -> None:
    need_module("mypy")
    assert _complaints("mypy", *CODE) == ""


@pytest.mark.parametrize("arguments", [("check",), ("format", "--check")], ids=["rules", "format"])
def test_the_code_keeps_to_its_style(arguments: tuple[str, ...]) -> None:
    need_module("ruff")
    assert _complaints("ruff", *arguments, *CODE) == ""


def _imports(path: Path) -> Iterator[tuple[str, int, bool]]:
    """Give what a file imports, on which line, and whether only for type checkers."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno, id(node) in typing_only
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module, node.lineno, id(node) in typing_only


def _within(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


@pytest.mark.parametrize("package", LAYERS)
def test_imports_point_down(package: str) -> None:
    allowed = (package, *LAYERS[package], "hypnocast.errors")
    folder = ROOT / "daemon" / Path(*package.split("."))
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in folder.rglob("*.py")
        for name, line, typing_only in _imports(path)
        if name.startswith("hypnocast.") and not typing_only and not _within(name, allowed)
    ]
    assert wrong == []


def test_the_daemon_imports_nothing_that_trains() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in set((ROOT / "daemon").rglob("*.py")) - {PEER}
        for name, line, _ in _imports(path)
        if name.partition(".")[0] in NOT_IN_THE_DAEMON
    ]
    assert wrong == []


def _modules() -> Iterator[Path]:
    for root in ("daemon", "models"):
        yield from (ROOT / root).rglob("*.py")


def _classes(paths: Iterable[Path]) -> dict[str, list[str]]:
    places: dict[str, list[str]] = {}
    for path in paths:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    return {name: where for name, where in places.items() if len(where) > 1}


def test_no_public_class_name_occurs_twice() -> None:
    assert _classes(_modules()) == {}


def test_the_style_of_class_names_is_one_name_each_in_tests_too() -> None:
    assert _classes((*_modules(), *(ROOT / "tests").rglob("*.py"))) == {}


def test_a_module_has_a_size_that_can_be_read() -> None:
    lines = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for path in _modules()
    }
    assert {name: count for name, count in lines.items() if count > 400} == {}
    short = [n for n, c in lines.items() if c < 30 and not n.endswith("__init__.py")]
    assert len(short) < 10, short


def test_the_journey_of_one_sample_is_as_short_as_the_map_says() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if re.match(r"\| \d+ ", line)]
    way = [name for row in rows for name in re.findall(r"`([\w/]+\.py)`", row)]
    assert len(set(way)) == len(way) <= 30
    assert f"That is {len(way)} modules" in text
    assert [name for name in way if not (ROOT / "daemon" / "hypnocast" / name).is_file()] == []


def _name_of(path: Path) -> str:
    for root in (ROOT / "daemon", ROOT / "models"):
        if path.is_relative_to(root):
            parts = path.relative_to(root).with_suffix("").parts
            return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    raise AssertionError(path)


def test_no_imports_run_in_a_circle() -> None:
    """Within a folder too: what imports each other is one module, or three."""
    names = {_name_of(path) for path in _modules()}
    graph: dict[str, set[str]] = {}
    for path in _modules():
        here = graph.setdefault(_name_of(path), set())
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                inner = {f"{node.module}.{alias.name}" for alias in node.names} & names
                here |= inner or ({node.module} & names)
    done: set[str] = set()

    def follow(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join((*way[way.index(name) :], name))
        if name not in done:
            for other in sorted(graph.get(name, ())):
                follow(other, (*way, name))
            done.add(name)

    for name in sorted(graph):
        follow(name, ())


def test_the_style_of_words_is_plain() -> None:
    """A word of the old vocabulary stays with a reason only: ``tests/support/vocabulary.py``."""
    found = [f"{one.place} {one.word}" for one in left() if not one.why]
    assert found == []
