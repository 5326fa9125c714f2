"""Commands that make packs of weights, and weights of real size to try that with."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from hypnocast.commands.output import writing
from hypnocast_models.commands.screen import print_line

exporting = typer.Typer()


@exporting.command("export")
def export(
    weights: Annotated[
        Path,
        typer.Argument(
            help="Weights and tokenizer in transformers' layout, peft's adapter, or an image "
            "classifier (folder of transformers or optimum, .onnx file)."
        ),
    ],
    pack: Annotated[Path, typer.Argument(help="Folder of the pack; a CARD.md there becomes part.")],
    *,
    name: Annotated[str, typer.Option(help="Name of the pack.")],
    version: str = "0.1.0",
    recipe: Annotated[str, typer.Option(help="How pages are drawn.")] = "clinical-448x224",
    precision: Annotated[
        str, typer.Option(help="fp32, fp16, int8, int4, int4-fp16 (GPU).")
    ] = "fp32",
    block: Annotated[
        int, typer.Option(help="Numbers that share a scale in int4 and in the head: 32, 64, 128.")
    ] = 32,
    head: Annotated[
        str | None,
        typer.Option(help="Of embeddings and head, if otherwise: int4, int8, fp32."),
    ] = None,
    base: Annotated[
        Path | None, typer.Option(help="The weights of an adapter, where it does not name them.")
    ] = None,
    labels: Annotated[
        str, typer.Option(help="A classifier's classes in its order, W,N1,N2,N3,R.")
    ] = "",
    sleepvlm_prompt: Annotated[
        Path | None,
        typer.Option(help="SleepVLM's system prompt, from its project: ask as it was trained."),
    ] = None,
    stage_first: Annotated[
        bool, typer.Option(help="Ask for the stage first, then for the reasons.")
    ] = False,
    prove: Annotated[
        bool, typer.Option(help="Hold the pack against the model, where memory allows.")
    ] = True,
    prove_on: Annotated[
        Path | None, typer.Option(help="An archive whose pages prove it; else two simulated ones.")
    ] = None,
    prove_pages: Annotated[int, typer.Option(help="So many pages of it.", min=1)] = 10,
    commit: Annotated[str, typer.Option(help="Commit of the code that trained.")] = "0" * 40,
) -> None:
    """Make a pack of a model of any kind and size, and prove that it says what the model says.

    What is known is written in a stream, one tensor in memory at a time; the rest is traced by
    PyTorch. The proof prints the largest difference and the stages that stay; an fp32 pack that
    is off is refused.
    """
    from hypnocast.core.pictures.recipe import builtin
    from hypnocast_models.export.label import plain_label
    from hypnocast_models.tune.deliver import Wishes, check_delivery, deliver

    check_delivery(name, version, precision)
    label = plain_label(name, version, builtin(recipe), commit, weights)
    wishes = Wishes(
        precision=precision,
        block=block,
        head=head,
        stage_first=stage_first,
        prompt=sleepvlm_prompt,
        labels=tuple(part.strip() for part in labels.split(",") if part.strip()),
        prove=prove,
        prove_on=prove_on,
        pages=prove_pages,
    )
    with writing(pack, own=True):
        made = deliver(weights, label, pack, wishes, base=base, progress=print_line)
    print_line(f"{made.manifest.name} {made.manifest.version} {made.digest}")


@exporting.command("weights")
def make_weights(
    size: Annotated[str, typer.Argument(help="As named below.")],
    folder: Annotated[Path, typer.Argument(help="Where weights and tokenizer go.")],
    *,
    seed: int = 0,
    layers: Annotated[int | None, typer.Option(help="A decoder of fewer layers.")] = None,
) -> None:
    """Write random weights of real size, to measure with: no download.

    Sizes: smolvlm-256m, smolvlm-500m, qwen2.5-vl-3b, llava-1.5-7b, llava-next-7b,
    clip-vit-l-14-336, siglip-so400m-384. The tokenizer is a small one of its own.
    """
    from hypnocast_models.export.asking import WORDS
    from hypnocast_models.export.model_files import read_config
    from hypnocast_models.export.random_weights import write_random
    from hypnocast_models.tune.families import tiny_tokenizer

    began = time.perf_counter()
    with writing(folder, own=True):
        total = write_random(size, folder, seed, layers=layers)
        kind = read_config(folder)["model_type"]
        tiny_tokenizer(kind, folder, WORDS)
    print_line(f"{size}: {total / 1e9:.2f} GB in {folder}, {time.perf_counter() - began:.0f} s")
