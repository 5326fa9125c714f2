"""The journal's files: damaged, full, read-only, held by another, open to others."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hypnocast.errors import JournalError
from hypnocast.ports.journal.journal import Journal
from hypnocast.ports.journal.reader import JournalReader
from support.needs import need_program
from support.nights import a_batch, a_session, an_event

PROCESS = Path(__file__).with_name("journal_process.py")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "journal.sqlite"


async def _some_night(path: Path, pages: int = 300) -> None:
    async with Journal.open(path) as journal:
        await journal.commit(a_batch(*(an_event(k) for k in range(pages)), session=a_session()))


def _spoil_middle(path: Path) -> None:
    with path.open("r+b") as file:
        size = path.stat().st_size
        file.seek(4096)
        file.write(b"\xa5" * (size - 8192))


def _spoil_head(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"This is no database" * 20)


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("spoil", [_spoil_middle, _spoil_head, _cut])
async def test_a_damaged_journal_is_set_aside_and_a_new_one_begun(
    path: Path, spoil: Callable[[Path], None]
) -> None:
    await _some_night(path)
    with JournalReader(path) as reader:
        generation = reader._rows("SELECT value FROM meta")[0][0]
    spoil(path)
    damaged = path.read_bytes()  # noqa: ASYNC240 - a small file
    async with Journal.open(path) as journal:
        aside = journal.condition.set_aside
        assert aside is not None
        assert str(aside) in journal.condition.why
        assert aside.read_bytes() == damaged
        assert journal.generation != generation
        done = await journal.commit(a_batch(an_event(0), session=a_session()))
        assert done.durable


async def test_a_log_whose_file_is_gone_is_set_aside_and_reported(path: Path) -> None:
    """A cut between the renames of setting aside leaves it so; SQLite would delete the log."""
    async with Journal.open(path) as journal:
        await journal.commit(a_batch(*(an_event(k) for k in range(20)), session=a_session()))
        log = path.with_name("journal.sqlite-wal")
        kept = log.read_bytes()
        assert len(kept) > 20_000
    for file in path.parent.iterdir():
        file.unlink()
    log.write_bytes(kept)
    async with Journal.open(path) as journal:
        aside = journal.condition.set_aside
        assert aside is not None
        assert aside.read_bytes() == kept
        assert str(aside) in journal.condition.why
        assert (await journal.commit(a_batch(an_event(0), session=a_session()))).durable


async def test_damage_in_mid_night_lets_the_night_go_on_and_count_on(path: Path) -> None:
    async with Journal.open(path) as journal:
        await journal.commit(a_batch(*(an_event(k) for k in range(300)), session=a_session()))
        generation = journal.generation

        def forget_what_is_cached(_: object) -> int:
            db = journal._writer.storage.store.connection
            db.execute("PRAGMA shrink_memory")
            return 0

        journal._writer.storage.store.fold()
        _spoil_middle(path)
        await asyncio.wrap_future(journal._writer.chore(forget_what_is_cached))
        done = await journal.commit(a_batch(an_event(300)))
        assert done.durable
        assert done.events[0].sequence == 301
        assert journal.condition.set_aside is not None
        assert journal.generation != generation
        assert await journal.read(JournalReader.open_sessions) == (a_session(),)
        assert [row.sequence for row in await journal.events("bed1")] == [301]
    async with Journal.open(path) as journal:
        done = await journal.commit(a_batch(an_event(301)))
        assert done.events[0].sequence == 302


def _on_own_disk(folder: Path, options: str, what: str) -> str:
    """Run the journal's process on a small disk of its own."""
    unshare = need_program("unshare")
    mount = f'mount -t tmpfs -o {options} tmpfs "$1"'
    namespace = [unshare, "--user", "--map-root-user", "--mount", "sh", "-c"]
    script = f'{mount} && exec "$2" "$3" {what} "$1"'
    trial = [*namespace, mount, "sh", str(folder)]
    if subprocess.run(trial, check=False, capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount a disk in a namespace of their own")
    run = subprocess.run(
        [*namespace, script, "sh", str(folder), sys.executable, str(PROCESS)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def test_a_full_disk_costs_durability_but_no_event(tmp_path: Path) -> None:
    assert "on the reserve" in _on_own_disk(tmp_path, "size=40m", "fill")


def test_a_read_only_disk_is_reported_at_the_start(tmp_path: Path) -> None:
    found = _on_own_disk(tmp_path, "ro", "read-only")
    assert "Read-only file system" in found
    assert "Name a directory" in found


async def test_files_belong_to_nobody_else(path: Path) -> None:
    async with Journal.open(path) as journal:
        await journal.commit(a_batch(an_event(0), session=a_session()))
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        for file in path.parent.iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


async def test_a_second_daemon_is_refused_and_the_first_is_named(path: Path) -> None:
    async with Journal.open(path):
        with pytest.raises(JournalError, match=f"process {os.getpid()}"):
            Journal.open(path)
    await Journal.open(path).aclose()


def test_a_folder_that_others_may_write_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o770)
    with pytest.raises(JournalError, match="chmod go-w"):
        Journal.open(tmp_path / "journal.sqlite")


def test_a_file_of_another_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE recipes (name TEXT)")
    other.close()
    path.chmod(0o600)
    before = path.read_bytes()
    with pytest.raises(JournalError, match="another program"):
        Journal.open(path)
    assert path.read_bytes() == before


async def test_a_journal_of_a_newer_version_is_left_alone(path: Path) -> None:
    await _some_night(path, 1)
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(JournalError, match="newer Hypnocast"):
        Journal.open(path)
    assert not list(path.parent.glob("*damaged*"))


async def test_a_report_reads_while_the_daemon_writes(path: Path) -> None:
    async with Journal.open(path) as journal:
        await journal.commit(a_batch(an_event(0), session=a_session()))
        with JournalReader(path) as report:
            assert len(report.night("bed1-night").events) == 1
            await journal.commit(a_batch(an_event(1)))
            assert len(report.night("bed1-night").events) == 2
            with pytest.raises(sqlite3.OperationalError, match="readonly"):
                report._db.execute("DELETE FROM events")
            with pytest.raises(JournalError, match="hypnocast nights"):
                report.night("nobody")
    with pytest.raises(JournalError, match="no journal here"):
        JournalReader(path.with_name("other.sqlite"))
