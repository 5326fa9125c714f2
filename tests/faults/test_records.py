"""The records for those who must answer for it are true."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from support import promises, third_party

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_every_promise_is_proven_and_no_proof_is_named_that_is_not_there() -> None:
    proofs = promises.proofs()
    assert {proof.promise for proof in proofs} == set(promises.PROMISES)
    page = promises.PAGE.read_text()
    named = set(re.findall(r"^\| (.+) \| `(tests/\S+)` \|$", page, re.MULTILINE))
    there = {(p.test.removeprefix("test_").replace("_", " "), p.file) for p in proofs}
    assert named <= there, "run: python tests/support/promises.py"
    assert named


def test_the_list_of_other_peoples_software_is_the_pinned_one() -> None:
    assert third_party.PAGE.read_text() == third_party.page(), (
        "run: python tests/support/third_party.py"
    )


def test_every_package_we_ask_for_has_a_purpose() -> None:
    project = tomllib.loads((DOCS.parent / "pyproject.toml").read_text())["project"]
    asked = [re.split(r"[^a-z0-9-]", one)[0] for one in project["dependencies"]]
    assert asked
    assert set(asked) <= set(third_party.PURPOSE)


def test_links_between_the_records_lead_somewhere() -> None:
    for name in ("security.md", "promises.md", "third-party.md", "faults.md"):
        for target in re.findall(r"\]\(([a-z0-9./-]+\.md)\)", (DOCS / name).read_text()):
            assert (DOCS / target).is_file(), (name, target)
