"""Whom a model was taught on: figures on these people are no test of it."""

from __future__ import annotations

from collections.abc import Iterable

from hypnocast.stagers.packs.manifest import Manifest


def taught_subjects(manifest: Manifest) -> frozenset[str]:
    """Give every subject that a pack's provenance lists."""
    return frozenset(one for source in manifest.provenance.sources for one in source.subjects)


def warn_of_taught(manifest: Manifest, subjects: Iterable[str]) -> tuple[str, ...]:
    """Give a line for each source of a pack in which some of these subjects are listed.

    Subjects are known by their codes alone, and two archives may use the same ones, so this is
    reported and not refused.
    """
    judged = frozenset(subjects)
    lines = []
    for source in manifest.provenance.sources:
        known = sorted(judged & frozenset(source.subjects))
        if known:
            lines.append(
                f"warning: {manifest.name} {manifest.version} lists {', '.join(known)} among the "
                f"subjects of {source.name} that it was taught on: if these are the same people, "
                "figures on them are no test"
            )
    return tuple(lines)
