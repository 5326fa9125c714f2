"""The files of a pack, looked at before any of them is used.

What is refused is a :class:`PackError` that names the file. All faults are found, so that
loading can raise the first and ``pack verify`` can list every one.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath

from hypnocast.errors import PackError
from hypnocast.stagers.onnx.inspection import inspect_onnx
from hypnocast.stagers.packs.manifest import Contrastive, Manifest, Model, Signals

MANIFEST = "pack.toml"
SIGNATURE = "pack.toml.minisig"
"""Who made the pack: the one file that the manifest cannot list."""
MAX_FILES = 512
MAX_SIDE_FILE = 64 << 20
"""Bytes of any file of a pack but ONNX models and their data."""

_MODEL_DATA = frozenset({".onnx", ".onnx_data", ".data"})
_ALLOWED = _MODEL_DATA | {".json", ".toml", ".md", ".txt", ".csv", ".f32", ".png"}
_PICKLES = frozenset({".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt", ".joblib", ".npy", ".npz"})
_PICKLED = re.compile(rb"\x80[\x02-\x05]|PK\x03\x04|\x93NUMPY")
"""How a pickle, a PyTorch archive and a numpy file begin, whatever the file is called."""
_NAME = re.compile(r"[A-Za-z0-9][\w .+-]*(/[A-Za-z0-9][\w .+-]*)*", re.ASCII)

_WRITABLE = "anybody on this machine may write it"
_CLOSE = "Take that away: `chmod -R o-w` on the pack's folder, then verify it."
_HOSTILE = "Do not use this pack; ask who made it."
_DAMAGED = "Get the pack again."


@dataclass(frozen=True, slots=True)
class FileStamp:
    """Which file it is, and when it was changed last: what nobody but root can set back."""

    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, path: Path) -> FileStamp:
        """Look at a file; a link in its place is another file."""
        state = path.lstat()
        return cls(state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)


def read_plain(path: Path) -> bytes:
    """Read a file that is no link."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
            return file.read()
    except OSError as error:
        raise PackError(
            f"cannot be read ({error.strerror})", where=str(path), remedy=_DAMAGED
        ) from error


def file_digest(path: Path) -> str:
    """Return ``sha256:`` and 64 hex digits over a file."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def find_faults(
    folder: Path, manifest: Manifest, stamps: dict[str, FileStamp] | None = None
) -> Iterator[PackError]:
    """Yield every fault of a pack's files; no file is opened before it is accounted for.

    ``stamps`` collects what each file was before it was read.
    """
    yield from _writable_faults(folder)
    lying: dict[str, int] = {}
    for path, state in islice(_walk(folder), 2 * MAX_FILES):
        if stat.S_ISREG(state.st_mode):
            lying[path.relative_to(folder).as_posix()] = state.st_size
            if state.st_mode & stat.S_IWOTH:
                yield _fault(path, _WRITABLE, _CLOSE)
        else:
            kind = "a symbolic link" if stat.S_ISLNK(state.st_mode) else "no regular file"
            yield _fault(path, f"{kind}: it may lead out of the pack", _HOSTILE)
    for name in sorted(lying.keys() - manifest.files.keys() - {MANIFEST, SIGNATURE}):
        yield _fault(folder / name, "lies in the pack, but [files] does not list it", _HOSTILE)
    if len(manifest.files) > MAX_FILES:
        yield _fault(folder / MANIFEST, f"files: lists more than {MAX_FILES}", _HOSTILE)
        return
    sound = True
    if stamps is not None:
        stamps.update((n, FileStamp.of(folder / n)) for n in manifest.files if n in lying)
    for name, digest in manifest.files.items():
        for fault in _file_faults(folder, name, digest, lying):
            sound = False
            yield fault
    if sound:
        yield from _use_faults(folder, manifest)


def _writable_faults(folder: Path) -> Iterator[PackError]:
    """Yield the folders of a pack that anybody may write."""
    for place, _, _ in islice(os.walk(folder), MAX_FILES):
        if Path(place).lstat().st_mode & stat.S_IWOTH:
            yield _fault(Path(place), _WRITABLE, _CLOSE)


def _fault(path: Path, what: str, remedy: str = _DAMAGED) -> PackError:
    return PackError(what, where=str(path), remedy=remedy)


def _walk(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    waiting = [folder]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in sorted(entries, key=lambda found: found.name):
                state = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(state.st_mode):
                    waiting.append(Path(entry.path))
                else:
                    yield Path(entry.path), state


def _file_faults(
    folder: Path, name: str, digest: str, lying: dict[str, int]
) -> Iterator[PackError]:
    path, kind = folder / name, PurePosixPath(name).suffix.lower()
    if len(name) > 255 or not _NAME.fullmatch(name):
        yield _fault(
            folder / MANIFEST, f"files: {name[:80]!r} is no plain path in the pack", _HOSTILE
        )
    elif kind in _PICKLES:
        yield _fault(path, f"{kind} files can carry code and are not allowed", _HOSTILE)
    elif kind not in _ALLOWED:
        yield _fault(path, f"files ending in {kind!r} have no place in a pack", _HOSTILE)
    elif name not in lying:
        yield _fault(path, "listed, but not there")
    elif kind not in _MODEL_DATA and lying[name] > MAX_SIDE_FILE:
        yield _fault(path, f"{lying[name]} bytes is more than {MAX_SIDE_FILE}", _HOSTILE)
    else:
        with path.open("rb") as file:
            if kind not in _MODEL_DATA and _PICKLED.match(file.read(8)):
                yield _fault(path, "a pickle or an archive under another name", _HOSTILE)
        if file_digest(path) != digest:
            yield _fault(path, "its SHA-256 is not the one the pack was made with")


_GRAPHS = ("image_enc", "vision_enc", "embed", "dec", "votes", "recurrent")
"""How the keys of a model's table that name graphs begin."""


def _use_faults(folder: Path, manifest: Manifest) -> Iterator[PackError]:
    """Yield faults of what the files are used for."""
    model = manifest.model
    for key, name in _used(model).items():
        if name not in manifest.files:
            yield _fault(folder / MANIFEST, f"model.{key}: {name!r} is not listed in [files]")
        elif key.startswith(_GRAPHS) != name.endswith(".onnx"):
            yield _fault(folder / MANIFEST, f"model.{key}: {name!r} is the wrong kind of file")
        elif key == "prompt_embeddings" and isinstance(model, Contrastive):
            expected = 4 * len(model.prompts) * model.dimensions
            if (folder / name).stat().st_size != expected:
                yield _fault(folder / name, f"is not {expected} bytes, as prompts × dimensions say")
    for name in manifest.files:
        if name.endswith(".onnx"):
            yield from _onnx_faults(folder, name, manifest)


def _used(model: Model) -> dict[str, str]:
    """Return the files that a model's table names, by their keys."""
    if isinstance(model, Contrastive):
        return {"image_encoder": model.image_encoder, "prompt_embeddings": model.prompt_embeddings}
    if isinstance(model, Signals):
        used = {f"votes[{at}].graph": vote.graph for at, vote in enumerate(model.votes)}
        return used | ({} if model.recurrent is None else {"recurrent": model.recurrent})
    used = {
        "vision_encoder": model.vision_encoder,
        "embed_tokens": model.embed_tokens,
        "decoder": model.decoder,
        "tokenizer": model.tokenizer,
    }
    return used | ({} if model.schema is None else {"schema": model.schema})


def _onnx_faults(folder: Path, name: str, manifest: Manifest) -> Iterator[PackError]:
    try:
        facts = inspect_onnx(folder / name, str(folder / name))
    except PackError as fault:
        yield fault
        return
    beside = PurePosixPath(name).parent
    for location in sorted(facts.external):
        listed = (
            str(beside / location) in manifest.files
            and _NAME.fullmatch(location)
            and PurePosixPath(location).suffix in _MODEL_DATA - {".onnx"}
        )
        if not listed:
            what = f"keeps weights in {location[:80]!r}, which is no listed data file of the pack"
            yield _fault(folder / name, what, _HOSTILE)
