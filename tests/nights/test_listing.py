"""The list of nights stays a table, however long the names are."""

from __future__ import annotations

from zoneinfo import ZoneInfo

from hypnocast.nights.listing import NightLine, as_text


def _night(session: str, bed: str, subject: str | None) -> NightLine:
    return NightLine(
        session=session, bed=bed, subject=subject, source="live",
        start="2026-03-29T00:30:00.000Z", ended="2026-03-29T06:00:00.000Z", pages=660, final=655,
        withheld=5, review=12, total_sleep_min=290.0, sleep_efficiency_percent=87.9, scorers=(),
    )  # fmt: skip


def test_columns_stand_below_their_names_with_long_ids() -> None:
    bed = "sleeplab-pc3-actichamp-12345"
    lines = [
        _night(f"{bed}-20260329T003000Z", bed, "SUBJECT-0123456789"),
        _night("1-20260328T220000Z", "1", None),
    ]
    head, *rows = as_text(lines, ZoneInfo("Europe/Berlin"))
    for row in rows:
        assert row[head.index("bed")] != " "
        assert row[head.index("bed") - 1] == " "
        assert row[head.index("subject") - 1] == " "
        assert row[head.index("began") :].startswith("2026-03-29 01:30")
    assert len(set(map(len, rows))) == 1
