"""The remote stager: a pack served by the Open Inference Protocol (gRPC), e.g. by Triton.

A server has the pack as one model whose name ends in the pack's digest (see
:mod:`hypnocast.stagers.remote.triton_repository`), so that a daemon cannot be answered by another
pack by mistake.
Pictures travel as PNG, which loses nothing; each is packed once, though it may be sent as the
neighbour of several pages. Every look is a request of its own, all under way at once: the server
batches them, over beds and over daemons.
"""

from __future__ import annotations

import io
import queue
import time
from collections import OrderedDict
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from PIL import Image

from hypnocast.core.quality import coverage_of
from hypnocast.core.types import STAGES, Look, Opinion, Picture
from hypnocast.errors import ConfigError, InferenceError, InstallError
from hypnocast.stagers.pace import Pace
from hypnocast.stagers.packs.pack import Pack

PICTURES: Final = "PICTURES"
LOG_PROBABILITIES: Final = "LOG_PROBABILITIES"
ANSWER: Final = "ANSWER"

TERMINAL, PROVISIONAL = 1, 2
"""Priorities: lower is sooner."""

DEADLINE_S = 5.0
"""A server that has not answered by then counts as gone; the next stager judges the pages."""

PACKED_BYTES = 32_000_000
"""PNGs kept for pages that come again as neighbours."""

_CHANNEL: Final = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5000),
)
"""A server that is back is found again within seconds."""


class _Answer(msgspec.Struct):
    """What a model wrote beside the stage."""

    rationale: str | None = None
    rules: tuple[str, ...] | None = None


_decoder = msgspec.json.Decoder(_Answer)


def served_name(pack: Pack) -> str:
    """Return what a pack is called on a server."""
    return f"{pack.manifest.name}-{pack.digest.removeprefix('sha256:')[:16]}"


class RemoteStager:
    """Judges pages with a pack on one server."""

    def __init__(
        self,
        pack: Pack,
        server: str,
        *,
        ca_file: Path | None = None,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        """Keep the pack and the server (``grpc://host:port`` or ``grpcs://``); connects later.

        ``ca_file`` holds the certificates of who signs servers; None: those gRPC comes with.
        """
        scheme, _, self._address = server.partition("://")
        self._grpc = _client_library()
        self._client: Any = self._connect(ca_file, secure=scheme == "grpcs")
        self._pack = pack
        self.pace = Pace()
        self._name = served_name(pack)
        self._deadline_s = deadline_s
        self._packed: OrderedDict[str, bytes] = OrderedDict()
        self._packed_bytes = 0

    @property
    def provider(self) -> str:
        """What computes: ``remote:host:port``."""
        return f"remote:{self._address}"

    def judge(self, looks: Sequence[Look]) -> list[Opinion]:
        """Give an opinion on each look, or raise :class:`InferenceError` in time."""
        answers: queue.SimpleQueue[tuple[int, Any, Exception | None]] = queue.SimpleQueue()
        under_way = [self._ask(number, look, answers) for number, look in enumerate(looks)]
        opinions: dict[int, Opinion] = {}
        until = time.monotonic() + self._deadline_s
        try:
            while len(opinions) < len(looks):
                left = max(0.0, until - time.monotonic())
                number, result, error = answers.get(timeout=left)
                if error is not None:
                    raise self._failed(str(error)) from error
                opinions[number] = self._opinion(looks[number], result)
                self.pace.beat()
        except queue.Empty:
            raise self._failed(f"no answer within {self._deadline_s:g} s") from None
        finally:
            for number, request in enumerate(under_way):
                if number not in opinions:
                    request.cancel()
        return [opinions[number] for number in range(len(looks))]

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _connect(self, ca_file: Path | None, *, secure: bool) -> Any:
        credentials = None
        try:
            if secure:
                authority = None if ca_file is None else ca_file.read_bytes()
                credentials = import_module("grpc").ssl_channel_credentials(authority)
        except OSError as error:
            raise ConfigError(
                f"cannot be read: {error.strerror}",
                where=f"pack.remote_ca_file, {ca_file}",
                remedy="Name a file of PEM certificates that this user may read.",
            ) from None
        return self._grpc.InferenceServerClient(
            self._address, creds=credentials, channel_args=list(_CHANNEL)
        )

    def _ask(self, number: int, look: Look, answers: queue.SimpleQueue[Any]) -> Any:
        pngs = [b"" if picture is None else self._png(picture) for picture in look.pictures]
        tensor = self._grpc.InferInput(PICTURES, [1, len(pngs)], "BYTES")
        tensor.set_data_from_numpy(np.array([pngs], dtype=np.object_))
        after = look.pictures[look.center + 1 :]
        waits = any(picture is None for picture in after)
        try:
            return self._client.async_infer(
                self._name,
                [tensor],
                lambda result, error: answers.put((number, result, error)),
                priority=PROVISIONAL if waits else TERMINAL,
                client_timeout=self._deadline_s,
            )
        except self._grpc.InferenceServerException as error:
            raise self._failed(str(error)) from error

    def _opinion(self, look: Look, result: Any) -> Opinion:
        row = result.as_numpy(LOG_PROBABILITIES)
        fits = row is not None and row.shape == (1, len(STAGES)) and row.dtype.kind == "f"
        if not fits or not np.isfinite(row).all():
            raise self._failed("the answer has no log-probabilities of the five stages")
        answer = result.as_numpy(ANSWER)
        try:
            words = _decoder.decode(answer.item() or b"{}") if answer is not None else _Answer()
        except (ValueError, TypeError) as error:
            raise self._failed(f"what it wrote beside the stage is no answer: {error}") from error
        return Opinion(
            epoch=look.page.epoch,
            log_probabilities=row[0].astype(np.float64),
            provider=self.provider,
            rationale=words.rationale,
            rules=words.rules,
            coverage=coverage_of(look.page.quality, self._pack.manifest.montage.needed),
        )

    def _png(self, picture: Picture) -> bytes:
        png = self._packed.get(picture.digest)
        if png is None:
            file = io.BytesIO()
            Image.fromarray(picture.rgb).save(file, format="PNG", compress_level=1)
            png = self._packed[picture.digest] = file.getvalue()
            self._packed_bytes += len(png)
            while self._packed_bytes > PACKED_BYTES:
                self._packed_bytes -= len(self._packed.popitem(last=False)[1])
        return png

    def _failed(self, why: str) -> InferenceError:
        return InferenceError(
            f"the server did not judge: {' '.join(why.split())[:300]}",
            where=f"{self.provider}, model {self._name}",
            remedy="The pages are judged by the next server or here, until it answers again.",
        )


def _client_library() -> Any:
    try:
        return import_module("tritonclient.grpc")
    except ImportError as error:
        raise InstallError(
            f"pack.remote needs tritonclient: {error}",
            where="pack.remote",
            remedy="Install hypnocast[remote], or take pack.remote out of the configuration.",
        ) from error
