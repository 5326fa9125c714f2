"""The picture store: the pictures of past pages, for whoever leafs back through a night that runs.

Pictures are kept as PNG files below the state folder and are forgotten, the oldest night first,
when there are too many. They are a convenience: the tape has everything, and a disk that refuses
costs a page its picture and nothing else.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import re
import threading
from pathlib import Path
from types import MappingProxyType

import numpy as np
import structlog

from hypnocast.core.pictures.compressed import png
from hypnocast.core.pictures.render import picture_digest
from hypnocast.core.types import Look, Picture, Role
from hypnocast.ports.supervision import Supervisor

PAGES = "pages"
"""Where pictures lie in the state folder."""

KEEP_BYTES = 1_000_000_000
"""About a dozen nights of a ward of ten beds."""

DEADLINE_S = 120.0
"""A disk that takes so long over one picture has stopped; it is reported as slow long before."""

_MOST_WAITING = 64
_FORGET_EVERY = 200

_log = structlog.get_logger("pictures")


def folder_of(folder: Path, recipe: str, session: str) -> Path:
    """Return where a session's pictures are kept, as this recipe (its digest) drew them."""
    word = re.sub(r"[^A-Za-z0-9_-]+", "-", session)
    drawn_by = recipe.removeprefix("sha256:")[:12]  # another one's pages are no use to us
    return folder / f"{word}.{drawn_by}"


def kept_png(folder: Path, recipe: str, session: str, epoch: int) -> bytes | None:
    """Return a page whose bytes have the digest in its name; None where none is kept.

    Pictures are not synced: of the newest a power cut may leave half, or a hole that would
    decode as another picture.
    """
    for path in folder_of(folder, recipe, session).glob(f"{epoch:06d}.*.png"):
        try:
            kept = path.read_bytes()
        except OSError:
            continue
        if path.suffixes[0] == f".{_digest(kept)}":
            return kept
        _log.warning("a kept page is damaged", session=session, page=epoch, path=str(path))
    return None


class PictureStore:
    """Keeps pictures by session and epoch; written on a thread of its own."""

    def __init__(
        self,
        folder: Path,
        recipe: str,
        *,
        keep_bytes: int = KEEP_BYTES,
        supervisor: Supervisor | None = None,
    ) -> None:
        """Keep where pictures lie, the digest of the recipe that draws them, how much to keep.

        The thread that writes them is watched by ``supervisor``.
        """
        self._folder = folder
        self._recipe = recipe
        self._keep_bytes = keep_bytes
        self._writer = (supervisor or Supervisor()).pool("pictures", 1, deadline_s=DEADLINE_S)
        self._room = threading.BoundedSemaphore(_MOST_WAITING)
        self._written = 0
        self.left_out = 0
        """Pictures that were not kept because the disk was far behind."""

    def keep(self, session: str, picture: Picture) -> None:
        """Keep a picture; never waits, and gives up where the disk is far behind."""
        if self._room.acquire(blocking=False):
            self._writer.forget(self._write, session, picture)
        else:
            self.left_out += 1

    def close(self) -> None:
        """Write what waits."""
        self._writer.shutdown()

    async def png(self, session: str, epoch: int) -> bytes | None:
        """Return a page as a PNG file, or None where it is not kept (any more)."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._writer, self._png, session, epoch)

    async def look(self, session: str, epoch: int, *, before: int, after: int) -> Look | None:
        """Return a page among its neighbours, or None where the page is not kept."""

        def find() -> Look | None:
            around = range(epoch - before, epoch + after + 1)
            pictures = tuple(
                self._picture(session, number) if number >= 0 else None for number in around
            )
            return Look(pictures, before) if pictures[before] is not None else None

        return await asyncio.get_running_loop().run_in_executor(self._writer, find)

    # --- on its own thread: whoever asks sees all that was kept before ---------------------------

    def _png(self, session: str, epoch: int) -> bytes | None:
        return kept_png(self._folder, self._recipe, session, epoch)

    def _picture(self, session: str, epoch: int) -> Picture | None:
        from PIL import Image

        kept = self._png(session, epoch)
        if kept is None:
            return None
        with Image.open(io.BytesIO(kept), formats=("PNG",)) as image:
            rgb = np.asarray(image.convert("RGB"))
        return Picture(
            epoch=epoch,
            rgb=rgb,
            digest=picture_digest(rgb),
            recipe=self._recipe,
            quality=MappingProxyType({}),
            channels=MappingProxyType(dict[Role, str]()),
        )

    def _folder_of(self, session: str) -> Path:
        return folder_of(self._folder, self._recipe, session)

    def _write(self, session: str, picture: Picture) -> None:
        self._room.release()
        folder = self._folder_of(session)
        content = png(picture.rgb)
        path = folder / f"{picture.epoch:06d}.{_digest(content)}.png"
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            half = path.with_suffix(".part")
            half.write_bytes(content)
            half.replace(path)
            self._written += 1
            if self._written % _FORGET_EVERY == 1:
                self._forget()
        except OSError as error:
            _log.warning("a page is not kept", path=str(path), error=error.strerror)

    def _forget(self) -> None:
        """Forget the oldest pages until the rest is no more than may be kept."""
        kept = [(path.stat(), path) for path in self._folder.glob("*/*.png")]
        kept.sort(key=lambda one: one[0].st_mtime)
        total = sum(facts.st_size for facts, _ in kept)
        for facts, path in kept:
            if total <= self._keep_bytes:
                break
            path.unlink(missing_ok=True)
            total -= facts.st_size
            if not any(path.parent.iterdir()):
                path.parent.rmdir()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
