"""What is asked of GSSC itself. Run by the Python of the environment that has it.

    python gssc_networks.py export FOLDER        its networks as ONNX files, what they are on stdout
    python gssc_networks.py judge PAGES.npz OUT.npz    what its own real-time code makes of pages

GSSC is under the AGPL and never imported by Hypnocast: this file is a program of its own, which
needs neither Hypnocast nor anything else that GSSC does not bring along, but ``onnx``.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module, metadata
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch

SIGNALS = (("eeg",), ("eog",), ("eeg", "eog"))
SAMPLES = 2560
STATE = (10, 256)
FEATURES = 512
OPSET = 18


class Encoder(torch.nn.Module):  # type: ignore[misc]  # torch comes without types
    """From a page's signals to its features, for any number of pages."""

    def __init__(self, net: Any, names: Sequence[str]) -> None:
        super().__init__()
        self.signals = torch.nn.ModuleList([net.sig_net[name] for name in names])
        self.mix = net.mix_net[" ".join(names)]

    def forward(self, *pages: torch.Tensor) -> torch.Tensor:
        """Read (pages, 1, samples) of each signal."""
        read = [one(page).flatten(1) for one, page in zip(self.signals, pages, strict=True)]
        mixed: torch.Tensor = self.mix(torch.cat(read, dim=1)[..., None])
        return mixed[..., 0]


class ContextNet(torch.nn.Module):  # type: ignore[misc]  # torch comes without types
    """From features and a state to log-probabilities and the next state, row by row."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.gru, self.norm, self.relu, self.fc = net.gru, net.norm, net.relu, net.fc

    def forward(
        self, features: torch.Tensor, state: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Read (rows, features) and (rows, layers, width): each row is a night of its own."""
        out, after = self.gru(features[None], state.swapaxes(0, 1).contiguous())
        out = self.fc(self.relu(self.norm(out[0][..., None])[..., 0]))
        return torch.log_softmax(out, dim=-1), after.swapaxes(0, 1)


def networks() -> tuple[Any, Any]:
    """Load the two networks that the package carries. They are pickles: of the package alone."""
    import_module("gssc.networks")
    folder = files("gssc.nets")
    loaded = []
    for name in ("sig_net_v1.pt", "gru_net_v1.pt"):
        with folder.joinpath(name).open("rb") as file:
            net: Any = torch.load(file, map_location="cpu", weights_only=False)
        loaded.append(net.eval())
    return loaded[0], loaded[1]


torch.set_num_threads(1)  # threads that wait for each other cost more on a busy machine


def export(folder: Path) -> None:
    """Write ``eeg.onnx``, ``eog.onnx``, ``eeg_eog.onnx`` and ``context.onnx``."""
    warnings.simplefilter("ignore")
    net, context = networks()
    for names in SIGNALS:
        pages = tuple(torch.zeros(2, 1, SAMPLES) for _ in names)
        _export(Encoder(net, names), pages, folder / f"{'_'.join(names)}.onnx", names, ["features"])
    _export(
        ContextNet(context),
        (torch.zeros(2, FEATURES), torch.zeros(2, *STATE)),
        folder / "context.onnx",
        ["features", "state"],
        ["log_probabilities", "next_state"],
    )
    facts = {"version": metadata.version("gssc"), "samples": SAMPLES, "state_shape": STATE}
    print(json.dumps(facts))


def _export(
    net: torch.nn.Module,
    example: tuple[torch.Tensor, ...],
    path: Path,
    inputs: Sequence[str],
    outputs: Sequence[str],
) -> None:
    torch.onnx.export(
        net.eval(),
        example,
        str(path),
        input_names=list(inputs),
        output_names=list(outputs),
        dynamic_axes={name: {0: "rows"} for name in (*inputs, *outputs)},
        opset_version=OPSET,
        dynamo=False,
    )


def judge(pages: Path, out: Path) -> None:
    """Judge scaled pages (pages, channels, samples) one by one, as a live program would.

    ``eeg`` and ``eog`` name the channels. Of each page all permutations' log-probabilities are
    written, and the stage that GSSC's vote gives.
    """
    infer, utils = import_module("gssc.infer"), import_module("gssc.utils")
    given = np.load(pages, allow_pickle=False)
    names = {kind: [str(name) for name in given[kind]] for kind in ("eeg", "eog")}
    signals = {k: {"chans": list(n), "drop": True, "flip": False} for k, n in names.items()}
    combinations, matrix, channels, _ = utils.permute_sigs(None, signals)
    net, context = networks()
    one_by_one = infer.ArrayInfer(net, context, combinations, matrix, channels)
    hidden = torch.zeros(len(matrix), STATE[0], 1, STATE[1])
    outputs, stages = [], []
    for page in torch.tensor(given["pages"], dtype=torch.float32):
        logits, _, hidden = one_by_one.infer(page[None], hidden)
        outputs.append(logits[:, 0])
        stages.append(int(utils.loudest_vote(logits)[0]))
    np.savez(out, logits=np.stack(outputs), stages=np.array(stages))


def main() -> None:
    """Do what was asked."""
    what, *paths = sys.argv[1:]
    if what == "export":
        export(Path(paths[0]))
    else:
        judge(Path(paths[0]), Path(paths[1]))


if __name__ == "__main__":
    main()
