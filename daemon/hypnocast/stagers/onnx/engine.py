"""ONNX Runtime: found, opened and asked, and its errors turned into ours.

``onnxruntime`` and ``onnxruntime-gpu`` install the same files; with both, whichever came last
wins silently, so both is refused as much as neither. What a provider claims to offer is not
believed: after a session is made, the session is asked what it runs on.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from hypnocast.errors import InferenceError, InstallError

if TYPE_CHECKING:
    from types import ModuleType

    from hypnocast.stagers.packs.pack import Pack

Provider = Literal["auto", "cpu", "cuda", "tensorrt"]

Tensor = Any
"""A numpy array, or an ``OrtValue`` that stays on the device where it was computed."""

_CHAINS: Mapping[str, tuple[str, ...]] = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider", "CPUExecutionProvider"),
    "tensorrt": (
        "TensorrtExecutionProvider",
        "CUDAExecutionProvider",
        "CPUExecutionProvider",
    ),
}
_SHORT = {chain[0]: name for name, chain in _CHAINS.items()}
_DTYPES: Mapping[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
}


def installed_runtime() -> Literal["cpu", "gpu"]:
    """Return which ONNX Runtime is installed; neither or both is an :class:`InstallError`."""
    there = []
    for name in ("onnxruntime", "onnxruntime-gpu"):
        try:
            importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        there.append(name)
    if len(there) == 2:
        raise InstallError(
            "both onnxruntime and onnxruntime-gpu are installed, and overwrite each other",
            where="ONNX Runtime",
            remedy="Run `pip uninstall onnxruntime onnxruntime-gpu`, then install "
            "hypnocast[cpu] or hypnocast[gpu], not both.",
        )
    if not there:
        raise InstallError(
            "neither onnxruntime nor onnxruntime-gpu is installed",
            where="ONNX Runtime",
            remedy="Install hypnocast[cpu], or hypnocast[gpu] for an NVIDIA GPU.",
        )
    return "gpu" if there == ["onnxruntime-gpu"] else "cpu"


@cache
def _onnxruntime() -> ModuleType:
    kind = installed_runtime()
    # From 1.31 on its Linux wheels report to their maker; what a bedside runs is private.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        onnxruntime = importlib.import_module("onnxruntime")
    except ImportError as error:
        raise InstallError(
            f"onnxruntime cannot be imported: {error}",
            where="ONNX Runtime",
            remedy="Install hypnocast[cpu] or hypnocast[gpu] again in a fresh environment.",
        ) from error
    if kind == "gpu":
        # CUDA and cuDNN from their wheels; without this only system-wide copies are found.
        onnxruntime.preload_dlls()
    return onnxruntime


@cache
def _runtime_errors() -> tuple[type[Exception], ...]:
    state = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    named = (value for value in vars(state).values() if isinstance(value, type))
    return (*(kind for kind in named if issubclass(kind, Exception)), RuntimeError, ValueError)


def usable_cores() -> int:
    """Count the cores this process may use."""
    return len(os.sched_getaffinity(0))


@dataclass(frozen=True, slots=True)
class Port:
    """One input of a graph: its name, its shape (None where free) and its type."""

    name: str
    shape: tuple[int | None, ...]
    dtype: type[np.generic]


class Graph:
    """One ONNX model, open on one provider."""

    def __init__(
        self,
        session: Any,
        name: str,
        *,
        device: str | None = None,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        """Wrap an open session; with a ``device``, outputs may stay there between runs.

        ``beat`` is called after every run.
        """
        self._session = session
        self._name = name
        self._device = device
        self._beat = beat
        self.inputs = {port.name: _port(port) for port in session.get_inputs()}
        self.outputs = tuple(port.name for port in session.get_outputs())

    def run(self, feeds: Mapping[str, Tensor], *, stay: Collection[str] = ()) -> dict[str, Tensor]:
        """Compute all outputs; those named in ``stay`` are left on the device, if there is one."""
        try:
            if self._device is None:
                out = dict(zip(self.outputs, self._session.run(None, feeds), strict=True))
            else:
                out = self._run_bound(feeds, stay, self._device)
        except _runtime_errors() as error:
            raise self._failed(error) from error
        self._beat()
        return out

    def _failed(self, error: Exception) -> InferenceError:
        return InferenceError(
            f"ONNX Runtime failed: {str(error)[:300]}",
            where=self._name,
            remedy="The pages of this moment are judged without it, or withheld.",
        )

    def lay(self, array: NDArray[Any]) -> Tensor:
        """Return a tensor that lies on an array's own memory, for :meth:`run_in_place`."""
        return _onnxruntime().OrtValue.ortvalue_from_numpy(array)

    def run_in_place(
        self,
        feeds: Mapping[str, NDArray[Any]],
        buffers: Mapping[tuple[str, str], Tensor],
        wanted: str,
    ) -> NDArray[Any]:
        """Compute one output; buffers (input and output) are read and written where they lie."""
        binding = self._session.io_binding()
        try:
            for name, value in feeds.items():
                binding.bind_cpu_input(name, value)
            for (given, made), tensor in buffers.items():
                binding.bind_ortvalue_input(given, tensor)
                binding.bind_ortvalue_output(made, tensor)
            binding.bind_output(wanted, "cpu")
            self._session.run_with_iobinding(binding)
            out: NDArray[Any] = binding.get_outputs()[-1].numpy()
        except _runtime_errors() as error:
            raise self._failed(error) from error
        self._beat()
        return out

    def place(self, tensor: Tensor) -> Tensor:
        """Move a tensor to the graph's device, if it has one of its own."""
        if self._device is None or not isinstance(tensor, np.ndarray):
            return tensor
        return _onnxruntime().OrtValue.ortvalue_from_numpy(tensor, self._device, 0)

    def _run_bound(
        self, feeds: Mapping[str, Tensor], stay: Collection[str], device: str
    ) -> dict[str, Tensor]:
        binding = self._session.io_binding()
        for name, value in feeds.items():
            if isinstance(value, np.ndarray):
                binding.bind_cpu_input(name, value)
            else:
                binding.bind_ortvalue_input(name, value)
        for name in self.outputs:
            binding.bind_output(name, device if name in stay else "cpu")
        self._session.run_with_iobinding(binding)
        values = zip(self.outputs, binding.get_outputs(), strict=True)
        return {name: value if name in stay else value.numpy() for name, value in values}


def on_host(tensor: Tensor) -> NDArray[Any]:
    """Return a tensor as a numpy array, fetched from the device where it lies on one."""
    array: NDArray[Any] = tensor if isinstance(tensor, np.ndarray) else tensor.numpy()
    return array


class Engine:
    """Opens graphs on the provider that was asked for, as far as there is one."""

    def __init__(self, provider: Provider = "auto", threads: int | None = None) -> None:
        """Choose a provider; ``auto`` chooses CUDA where the GPU build and a GPU are there."""
        self._runtime = _onnxruntime()
        self._auto = provider == "auto"
        self._threads = threads or min(4, usable_cores())
        if provider == "auto":
            provider = "cuda" if installed_runtime() == "gpu" else "cpu"
        if provider != "cpu" and installed_runtime() == "cpu":
            raise InstallError(
                f"provider {provider!r} needs onnxruntime-gpu, and onnxruntime is installed",
                where="provider",
                remedy='Install hypnocast[gpu] in a fresh environment, or set provider = "cpu".',
            )
        self.provider: str = provider
        self.beat: Callable[[], None] = lambda: None
        """Called after every run of a graph that is opened from now on."""

    def open(self, pack: Pack, name: str) -> Graph:
        """Open a model of a pack: the very bytes that were verified."""
        session = self.session(pack.path(name), pack.read(name))
        # Weights beside the model are mapped, not read: that they are still those that were
        # verified is looked at once the session has them.
        pack.check_unchanged()
        device = None if self.provider == "cpu" else "cuda"
        return Graph(session, name, device=device, beat=self.beat)

    def session(self, path: Path, content: bytes) -> Any:
        """Open a model's bytes as ONNX Runtime's own session, and see on what it runs."""
        options = self._runtime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Between two pages there are seconds: threads that spin would only heat the room.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(path.parent)
        )
        chain = _CHAINS[self.provider]
        try:
            session = self._runtime.InferenceSession(content, options, providers=list(chain))
        except _runtime_errors() as error:
            raise InferenceError(
                f"ONNX Runtime cannot open the model: {str(error)[:300]}",
                where=path.name,
                remedy="Run `hypnocast pack verify`; update onnxruntime if the pack is newer.",
            ) from error
        active = _SHORT[session.get_providers()[0]]
        if active != self.provider:
            if not self._auto and active == "cpu":
                raise InferenceError(
                    f"provider {self.provider!r} was asked for, but the session runs on {active}",
                    where=path.name,
                    remedy='Check driver and CUDA libraries, or set provider = "auto".',
                )
            self.provider = active
        return session

    def on_cpu(self) -> Engine:
        """Make the engine that goes on when this one fails."""
        return Engine("cpu", self._threads)


def _port(port: Any) -> Port:
    dtype = _DTYPES.get(port.type)
    if dtype is None:
        raise InferenceError(
            f"input {port.name!r} has type {port.type}, which Hypnocast does not feed",
            where="model",
            remedy="Export the model again with one of the layouts in docs/packs.md.",
        )
    shape = tuple(size if isinstance(size, int) else None for size in port.shape)
    return Port(port.name, shape, dtype)
