"""Commands about folders of weights: random ones of real size, and packs written in a stream."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from hypnocast_models.commands.screen import print_line

weights = typer.Typer(no_args_is_help=True)


@weights.command("random")
def make_random(
    size: Annotated[str, typer.Argument(help="As in `--help` of this command.")],
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
    total = write_random(size, folder, seed, layers=layers)
    kind = read_config(folder)["model_type"]
    tiny_tokenizer(kind, folder, WORDS)
    print_line(f"{size}: {total / 1e9:.2f} GB in {folder}, {time.perf_counter() - began:.0f} s")


@weights.command("convert")
def convert(
    source: Annotated[Path, typer.Argument(help="Folder of weights in transformers' layout.")],
    pack: Annotated[Path, typer.Argument(help="Folder of the pack; a CARD.md there becomes part.")],
    *,
    name: Annotated[str, typer.Option(help="Name of the pack.")],
    version: str = "0.1.0",
    recipe: Annotated[str, typer.Option(help="How pages are drawn.")] = "clinical-448x224",
    precision: Annotated[str, typer.Option(help="int4, int8, fp16 or fp32.")] = "int4",
    block: Annotated[
        int, typer.Option(help="Numbers that share a scale in int4 and in the head: 32, 64, 128.")
    ] = 32,
    head: Annotated[
        str | None,
        typer.Option(help="Of embeddings and head, if otherwise: int4, int8, fp32."),
    ] = None,
    adapter: Annotated[
        Path | None, typer.Option(help="peft's LoRA adapter, merged on the way.")
    ] = None,
    sleepvlm_prompt: Annotated[
        Path | None,
        typer.Option(help="SleepVLM's system prompt, from its project: ask as it was trained."),
    ] = None,
    stage_first: Annotated[
        bool, typer.Option(help="Ask for the stage first, then for the reasons.")
    ] = False,
    prove_on: Annotated[
        Path | None,
        typer.Option(help="An archive on whose pages the pack is held against transformers."),
    ] = None,
    prove_pages: Annotated[int, typer.Option(help="So many pages of it.", min=1)] = 10,
    commit: Annotated[str, typer.Option(help="Commit of the code that trained.")] = "0" * 40,
) -> None:
    """Write a pack from weights of any size in a stream: a minute and a gigabyte for 3B.

    With `--prove-on` the model itself is run too, by PyTorch and with its own processor: the
    largest difference and the stages that stay are printed, and an fp32 pack that is off refused.
    """
    from hypnocast.core.pictures.recipe import builtin
    from hypnocast_models.export.asking import ask_as_sleepvlm, ask_plainly, ask_stage_first
    from hypnocast_models.export.stream import weighing
    from hypnocast_models.export.stream_pack import Ask, pack_folder

    ask: Ask = ask_plainly
    if sleepvlm_prompt is not None:
        ask = ask_as_sleepvlm(source, sleepvlm_prompt)
    elif stage_first:
        ask = ask_stage_first
    made = pack_folder(
        source,
        pack,
        weighing(precision, head=head, block=block),
        name=name,
        version=version,
        recipe=builtin(recipe),
        adapter=adapter,
        commit=commit,
        ask=ask,
        progress=print_line,
    )
    if prove_on is not None:
        from hypnocast_models.tune.deliver import pages_to_prove
        from hypnocast_models.tune.proof import prove

        pages = pages_to_prove(made.recipe, prove_on, prove_pages)
        weights_of = (source, None) if adapter is None else (adapter, source)
        proof = prove(made, weights_of[0], pages, base=weights_of[1])
        print_line(str(proof))
        if precision == "fp32":
            proof.demand()
    print_line(f"{made.manifest.name} {made.manifest.version} {made.digest}")
