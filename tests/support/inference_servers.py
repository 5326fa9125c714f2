"""Servers that speak the Open Inference Protocol over gRPC, for tests of the remote stager.

:class:`ProtocolServer` is a gRPC server of our own around Triton's protocol buffers: real wire,
real pack, but not Triton's batcher. :class:`Triton` is Triton Inference Server itself, as the
``nvidia-pytriton`` wheel carries it; ``HYPNOCAST_TRITON`` names the virtual environment that has
the wheel, ONNX Runtime and Hypnocast (with the wheel's own numpy < 2, so not ours).
"""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import pytest

from hypnocast.core.types import Opinion
from hypnocast.stagers.packs.pack import load_pack
from hypnocast.stagers.remote.open_inference import ANSWER, LOG_PROBABILITIES, served_name
from hypnocast.stagers.remote.triton_model import PackServer, answer_of
from support.brokers import free_port

DEADLINE_S = 60.0


class Server(Protocol):
    """A server of one pack that can be killed and started again."""

    @property
    def address(self) -> str: ...

    def start(self) -> None: ...

    def kill(self) -> None: ...


class ProtocolServer:
    """Serves a pack from this process; ``hold`` lets it fall silent."""

    def __init__(
        self, pack: Path, _folder: Path, certificate: tuple[Path, Path] | None = None
    ) -> None:
        self._certificate = certificate
        self._pack = load_pack(pack)
        self._server = PackServer(self._pack, "cpu")
        self._port = free_port()
        self._grpc: Any = None
        self.free = threading.Event()
        self.free.set()
        self.priorities: list[int] = []
        self.answer: Callable[[Opinion], bytes] = answer_of
        """What it writes beside the stage."""

    @property
    def address(self) -> str:
        if self._certificate is not None:
            return f"grpcs://localhost:{self._port}"
        return f"grpc://127.0.0.1:{self._port}"

    def start(self) -> None:
        import grpc
        from tritonclient.grpc import service_pb2_grpc

        outer = self

        class Servicer(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]  # no types
            def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802 - its name
                return outer._infer(request, context)

        self._grpc = grpc.server(ThreadPoolExecutor(8), options=(("grpc.so_reuseport", 0),))
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Servicer(), self._grpc)
        here = f"127.0.0.1:{self._port}"
        if self._certificate is not None:
            chain, key = (path.read_bytes() for path in self._certificate)
            self._grpc.add_secure_port(here, grpc.ssl_server_credentials([(key, chain)]))
        else:
            self._grpc.add_insecure_port(here)
        self._grpc.start()

    def kill(self) -> None:
        if self._grpc is not None:
            self.free.set()
            self._grpc.stop(grace=None).wait(DEADLINE_S)
            self._grpc = None

    def _infer(self, request: Any, context: Any) -> Any:
        import grpc
        from tritonclient.grpc import service_pb2

        if request.model_name != served_name(self._pack):
            context.abort(grpc.StatusCode.NOT_FOUND, f"unknown model: {request.model_name!r}")
        self.free.wait(DEADLINE_S)
        self.priorities.append(request.parameters["priority"].uint64_param)
        (opinion,) = self._server.judge([_strings(request.raw_input_contents[0])])
        answer = service_pb2.ModelInferResponse(model_name=request.model_name)
        answer.outputs.add(name=LOG_PROBABILITIES, datatype="FP64", shape=[1, 5])
        answer.outputs.add(name=ANSWER, datatype="BYTES", shape=[1, 1])
        probabilities = self.answer(opinion)
        answer.raw_output_contents.append(opinion.log_probabilities.astype("<f8").tobytes())
        answer.raw_output_contents.append(struct.pack("<I", len(probabilities)) + probabilities)
        return answer


def _strings(raw: bytes) -> list[bytes]:
    parts, at = [], 0
    while at < len(raw):
        (size,) = struct.unpack_from("<I", raw, at)
        parts.append(raw[at + 4 : at + 4 + size])
        at += 4 + size
    return parts


class Triton:
    """Triton Inference Server with the repository that ``pack to-triton`` writes."""

    def __init__(self, pack: Path, folder: Path) -> None:
        from hypnocast.stagers.remote.triton_repository import write_repository

        environment = os.environ.get("HYPNOCAST_TRITON", "")
        found = list(Path(environment).glob("lib/python3*/site-packages/pytriton/tritonserver"))
        if not environment or not found:
            pytest.skip("Triton is not there (HYPNOCAST_TRITON names its virtual environment)")
        self._root, self._environment, self._folder = found[0], Path(environment), folder
        version = self._root.parents[2].name.removeprefix("python")
        backend = folder / "backends" / "python"
        shutil.copytree(self._root / "backends" / "python", backend)
        stub = self._root / "python_backend_stubs" / version / "triton_python_backend_stub"
        shutil.copy(stub, backend)
        write_repository(load_pack(pack), folder / "models")
        self._ports = [free_port() for _ in range(3)]
        self._process: subprocess.Popen[bytes] | None = None
        self._scratch: set[Path] = set()

    @property
    def address(self) -> str:
        return f"grpc://127.0.0.1:{self._ports[0]}"

    def start(self) -> None:
        import tritonclient.grpc

        self._scratch = _scratch()

        libraries = self._root.parents[1] / "nvidia_pytriton.libs"
        base = subprocess.run(
            [self._environment / "bin" / "python", "-c", _LIBRARY_FOLDER],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        grpc, http, metrics = map(str, self._ports)
        with (self._folder / "triton.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    self._root / "bin" / "tritonserver",
                    *("--model-repository", self._folder / "models"),
                    *("--backend-directory", self._folder / "backends"),
                    *("--grpc-address", "127.0.0.1", "--grpc-port", grpc),
                    *("--http-address", "127.0.0.1", "--http-port", http),
                    *("--metrics-address", "127.0.0.1", "--metrics-port", metrics),
                ],
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={
                    "PATH": f"{self._environment / 'bin'}:{os.environ['PATH']}",
                    "LD_LIBRARY_PATH": f"{libraries}:{base}",
                },
            )
        client = tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{grpc}")
        try:
            _until(lambda: self._answers(client))
        finally:
            client.close()

    def _answers(self, client: Any) -> bool:
        from tritonclient.utils import InferenceServerException

        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "triton.log").read_text()
        try:
            return bool(client.is_server_ready())
        except InferenceServerException:
            return False

    def kill(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(DEADLINE_S)
            self._process = None
            for folder in _scratch() - self._scratch:
                folder.rmdir()


def _scratch() -> set[Path]:
    """Return the empty folders that its Python backend makes there, wherever TMPDIR points."""
    found = Path("/tmp").glob("python_env_*")  # noqa: S108 - where it makes them
    return {folder for folder in found if not any(folder.iterdir())}


_LIBRARY_FOLDER = "import sysconfig; print(sysconfig.get_config_var('LIBDIR'))"


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)
