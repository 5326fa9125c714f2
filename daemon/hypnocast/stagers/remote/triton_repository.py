"""``hypnocast pack to-triton``: a pack as a model repository for Triton Inference Server.

The model runs on Triton's Python backend, in a Python that has Hypnocast and ONNX Runtime. Its
name ends in the pack's digest, its batcher waits a moment for the pages of other beds, and what
makes a verdict terminal goes before what makes one provisional.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from hypnocast.core.types import STAGES
from hypnocast.errors import PackError
from hypnocast.stagers.onnx.local import MAX_BATCH
from hypnocast.stagers.packs.files import MANIFEST
from hypnocast.stagers.packs.pack import Pack
from hypnocast.stagers.remote.open_inference import (
    ANSWER,
    LOG_PROBABILITIES,
    PICTURES,
    PROVISIONAL,
    TERMINAL,
    served_name,
)

QUEUE_MS = 50
"""How long the batcher waits for further pages: a verdict has seconds."""

MODEL: Final = '''"""A pack of Hypnocast's, served: the code is in the installed package."""

from hypnocast.stagers.remote.triton_model import TritonPythonModel

__all__ = ["TritonPythonModel"]
'''


def write_repository(pack: Pack, folder: Path) -> Path:
    """Write a pack into a model repository, beside other models; return the model's folder."""
    model = folder / served_name(pack)
    version = model / "1"
    try:
        version.mkdir(parents=True)
        (model / "config.pbtxt").write_text(_config(pack), encoding="utf-8")
        (version / "model.py").write_text(MODEL, encoding="utf-8")
        target = version / "pack"
        for name in (MANIFEST, *pack.manifest.files):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(pack.folder / name, target / name)
    except FileExistsError:
        raise PackError(
            "is there already", where=str(model), remedy="Remove it to have it written again."
        ) from None
    except OSError:
        shutil.rmtree(model, ignore_errors=True)
        raise
    return model


def _config(pack: Pack) -> str:
    manifest = pack.manifest
    return f"""# {manifest.name} {manifest.version}, {pack.digest}
name: "{served_name(pack)}"
backend: "python"
max_batch_size: {MAX_BATCH}
input [
  {{ name: "{PICTURES}" data_type: TYPE_STRING dims: [ {manifest.context.pictures} ] }}
]
output [
  {{ name: "{LOG_PROBABILITIES}" data_type: TYPE_FP64 dims: [ {len(STAGES)} ] }},
  {{ name: "{ANSWER}" data_type: TYPE_STRING dims: [ 1 ] }}
]
dynamic_batching {{
  max_queue_delay_microseconds: {QUEUE_MS * 1000}
  priority_levels: {PROVISIONAL}
  default_priority_level: {TERMINAL}
}}
instance_group [ {{ count: 1 kind: KIND_CPU }} ]
parameters {{ key: "pack_digest" value {{ string_value: "{pack.digest}" }} }}
"""
