"""A pack on a server: the same verdicts, and a night that goes on when the server does not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from hypnocast.bench.watched_ward import WardWatch, run_room
from hypnocast.config.tables import Config
from hypnocast.config.tables import PackTable as PackConfig
from hypnocast.core.types import Arrival, Look
from hypnocast.errors import ConfigError, InferenceError, PackError
from hypnocast.simulate import SimulatedSource
from hypnocast.stagers import fallback
from hypnocast.stagers.onnx.local import LocalStager
from hypnocast.stagers.packs.manifest import Context
from hypnocast.stagers.packs.pack import load_pack
from hypnocast.stagers.remote.open_inference import RemoteStager, served_name
from hypnocast.stagers.remote.triton_repository import write_repository
from support.certificates import self_signed
from support.inference_servers import ProtocolServer, Server, Triton
from support.needs import need_module
from support.packs import make_tiny_pack, tiny_picture
from support.ward_lab import time_of

Start = Callable[[Path], Server]
LONG_ENOUGH = 600
"""Pages within which a server that is back is found again; the night ends when it is."""


@pytest.fixture(params=[ProtocolServer, Triton], ids=["protocol", "triton"])
def serve(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Start]:
    need_module("tritonclient")
    started: list[Server] = []

    def start(pack: Path) -> Server:
        server: Server = request.param(pack, tmp_path / "server")
        started.append(server)
        server.start()
        return server

    yield start
    for server in started:
        server.kill()


def pack_with_context(folder: Path) -> Path:
    return make_tiny_pack(folder, seed=3, context=Context(before=2, after=1))


def looks_of(count: int) -> list[Look]:
    pictures = [tiny_picture(epoch, epoch) for epoch in range(count + 1)]
    return [
        Look(
            (None, pictures[k - 1] if k else None, pictures[k], pictures[k + 1] if k % 2 else None),
            2,
        )
        for k in range(count)
    ]


def test_a_verdict_does_not_depend_on_where_it_was_computed(serve: Start, tmp_path: Path) -> None:
    folder = pack_with_context(tmp_path / "pack")
    pack, looks = load_pack(folder), looks_of(9)
    remote = RemoteStager(pack, serve(folder).address)
    there, here = remote.judge(looks), LocalStager(pack, "cpu").judge(looks)
    remote.close()
    for one, other in zip(there, here, strict=True):
        assert one.epoch == other.epoch
        assert one.provider == remote.provider
        np.testing.assert_allclose(one.log_probabilities, other.log_probabilities, atol=1e-4)
    assert len({tuple(opinion.log_probabilities) for opinion in there}) == len(looks)


def test_no_page_is_lost_when_the_server_is_killed_and_comes_back(
    serve: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fallback, "RETRY_AFTER_S", 0.5)
    folder = make_tiny_pack(tmp_path / "pack", seed=3)
    server = serve(folder)
    config = Config(pack=PackConfig(name=str(folder), remote=(server.address,), provider="cpu"))
    beds, ends = 8, [LONG_ENOUGH]

    def night(watch: WardWatch) -> Iterator[tuple[str, Arrival]]:
        """Kill the server, start it again, and go on until it judges and some pages longer."""
        todo = [(8, server.kill, "remote:"), (16, server.start, "cpu")]
        for bed, arrival in SimulatedSource(beds, seed=2, pages=LONG_ENOUGH, truth=False):
            page = (time_of(arrival) - 1000.0) / 30.0
            if todo and page >= todo[0][0] + 0.2:
                at, act, provider = todo.pop(0)
                wait_for_provider(watch, provider, at - 3)
                act()
            if not todo and ends[0] == LONG_ENOUGH and is_judged_by(watch, "remote:", 16):
                ends[0] = int(page) + 4
            if page >= ends[0] + 0.2:
                return
            yield bed, arrival

    watch = run_room(load_pack(folder), night, config)
    (whole,) = ends
    assert whole < LONG_ENOUGH, "the server was not found again"
    judged = {key: used for key, used in watch.providers.items() if key[1] < whole}
    assert len(judged) == beds * whole
    assert None not in judged.values(), "a page was withheld"
    used = [
        (watch.providers[key] or "").partition(":")[0]
        for key in sorted(judged, key=watch.durable.__getitem__)
    ]
    assert used[0] == "remote"
    assert "cpu" in used
    assert used[-1] == "remote"


def is_judged_by(watch: WardWatch, provider: str, epoch: int) -> bool:
    """Whether a page from here on was judged there."""
    return any(
        page >= epoch and (used or "").startswith(provider)
        for (_, page), used in list(watch.providers.items())
    )


def wait_for_provider(watch: WardWatch, provider: str, epoch: int) -> None:
    """Wait until a page about here was judged where it should be by now."""
    deadline = time.monotonic() + 30.0
    while not is_judged_by(watch, provider, epoch):
        assert time.monotonic() < deadline, f"nothing was judged by {provider}"
        time.sleep(0.01)


@pytest.fixture
def silent(tmp_path: Path) -> Iterator[tuple[ProtocolServer, Path]]:
    need_module("tritonclient")
    folder = pack_with_context(tmp_path / "pack")
    server = ProtocolServer(folder, tmp_path)
    server.start()
    yield server, folder
    server.kill()


def test_a_server_that_hangs_is_given_up_in_time(silent: tuple[ProtocolServer, Path]) -> None:
    server, folder = silent
    server.free.clear()
    remote = RemoteStager(load_pack(folder), server.address, deadline_s=0.5)
    began = time.monotonic()
    with pytest.raises(InferenceError, match=r"remote:127\.0\.0\.1"):
        remote.judge(looks_of(3))
    assert time.monotonic() - began < 5.0
    server.free.set()
    assert len(remote.judge(looks_of(3))) == 3
    remote.close()


def test_a_server_is_asked_over_tls_where_the_labs_own_authority_vouches_for_it(
    tmp_path: Path,
) -> None:
    need_module("tritonclient")
    certificate = self_signed(tmp_path)
    folder = pack_with_context(tmp_path / "pack")
    pack = load_pack(folder)
    server = ProtocolServer(folder, tmp_path, certificate)
    server.start()
    try:
        trusting = RemoteStager(pack, server.address, ca_file=certificate[0])
        assert len(trusting.judge(looks_of(2))) == 2
        trusting.close()
        stranger = RemoteStager(pack, server.address, deadline_s=2.0)
        with pytest.raises(InferenceError, match="the server did not judge"):
            stranger.judge(looks_of(1))
        stranger.close()
    finally:
        server.kill()


def test_an_authority_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    need_module("tritonclient")
    pack = load_pack(pack_with_context(tmp_path / "pack"))
    with pytest.raises(ConfigError, match=r"pack\.remote_ca_file, .*none\.pem"):
        RemoteStager(pack, "grpcs://localhost:1", ca_file=tmp_path / "none.pem")


def test_what_makes_a_verdict_terminal_goes_first(silent: tuple[ProtocolServer, Path]) -> None:
    server, folder = silent
    remote = RemoteStager(load_pack(folder), server.address)
    first, second = looks_of(2)
    remote.judge([first])
    remote.judge([second])
    remote.close()
    assert server.priorities == [2, 1]


def test_another_pack_on_the_server_is_refused(
    silent: tuple[ProtocolServer, Path], tmp_path: Path
) -> None:
    server, _ = silent
    other = load_pack(make_tiny_pack(tmp_path / "other", seed=4))
    remote = RemoteStager(other, server.address)
    with pytest.raises(InferenceError, match=served_name(other)):
        remote.judge([Look((tiny_picture(0, 0),), 0)])
    remote.close()


def test_the_fallback_reports_that_it_stands_lower_than_it_should(
    silent: tuple[ProtocolServer, Path],
) -> None:
    server, folder = silent
    pack = load_pack(folder)
    remote = RemoteStager(pack, server.address, deadline_s=1.0)
    steps: list[fallback.FallbackStep] = []
    fallbacks = fallback.FallbackStager([remote, LocalStager(pack, "cpu")], on_step=steps.append)
    fallbacks.judge(looks_of(1))
    assert list(fallbacks.degraded) == []
    server.kill()
    fallbacks.judge(looks_of(1))
    assert list(fallbacks.degraded) == [f"model: cpu instead of {remote.provider}"]
    assert [step.after for step in steps] == ["cpu"]
    fallbacks.close()


@pytest.mark.parametrize(
    "answered", [b"N2, I think", b'["N2"]', b'{"rules": 5}', b'{"rationale": []}']
)
def test_a_server_that_talks_nonsense_costs_no_page_its_stage(
    silent: tuple[ProtocolServer, Path], answered: bytes
) -> None:
    server, folder = silent
    pack = load_pack(folder)
    server.answer = lambda _: answered
    remote = RemoteStager(pack, server.address)
    fallbacks = fallback.FallbackStager([remote, LocalStager(pack, "cpu")], on_step=lambda _: None)
    assert [opinion.provider for opinion in fallbacks.judge(looks_of(2))] == ["cpu", "cpu"]
    fallbacks.close()


def test_the_repository_is_what_triton_reads(tmp_path: Path) -> None:
    need_module("tritonclient")
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    pack = load_pack(pack_with_context(tmp_path / "pack"))
    model = write_repository(pack, tmp_path / "models")
    config = text_format.Parse((model / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    assert config.name == model.name == served_name(pack)
    assert config.input[0].dims == [4]
    assert config.dynamic_batching.priority_levels == 2
    assert load_pack(model / "1" / "pack").digest == pack.digest
    with pytest.raises(PackError, match="there already"):
        write_repository(pack, tmp_path / "models")


def test_a_server_that_is_back_is_found_again_within_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gRPC's own pause between two attempts grows to two minutes."""
    need_module("tritonclient")
    import grpc

    made: list[dict[str, object]] = []
    channel = grpc.insecure_channel

    def noted(target: str, options: Sequence[tuple[str, object]] | None = None) -> object:
        made.append(dict(options or ()))
        return channel(target, options)

    monkeypatch.setattr(grpc, "insecure_channel", noted)
    RemoteStager(load_pack(pack_with_context(tmp_path / "pack")), "grpc://127.0.0.1:1").close()
    (options,) = made
    assert options["grpc.max_reconnect_backoff_ms"] == 5000
    assert options["grpc.max_receive_message_length"] == -1
