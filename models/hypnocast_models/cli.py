"""``hypnocast-models``: from scored recordings to a verified pack."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from hypnocast.commands.common import run_app
from hypnocast.commands.output import writing
from hypnocast.errors import CommandError, InstallError
from hypnocast_models.commands.exporting import exporting
from hypnocast_models.commands.judging import judging
from hypnocast_models.commands.packs import packs
from hypnocast_models.commands.research import research
from hypnocast_models.commands.screen import (
    Mains,
    print_line,
    progress_bars,
    stopped_cleanly,
)
from hypnocast_models.commands.small import small

app = typer.Typer(
    help="From scored recordings to a verified pack: draw, train, export, judge.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(small, name="small", no_args_is_help=True)
app.add_typer(packs, name="pack", no_args_is_help=True)
app.add_typer(judging)
app.add_typer(research)
app.add_typer(exporting)


def main() -> None:
    """Run a command; an error is one line on standard error."""
    raise SystemExit(run_app(app, "hypnocast-models"))


@app.command("time")
def time_pack(
    pack: Annotated[Path, typer.Argument(help="Folder of the pack.")],
    *,
    rounds: Annotated[int, typer.Option(help="Rounds; the median is shown.")] = 30,
) -> None:
    """Measure milliseconds a page on one core, alone and in a batch of 8 beds."""
    from hypnocast.stagers.packs.pack import load_pack
    from hypnocast_models.staging.timing import time_per_page

    loaded = load_pack(pack)
    for beds in (1, 8):
        print_line(f"batch of {beds}: {time_per_page(loaded, beds, rounds):.2f} ms a page")


@app.command("adopt")
def adopt(
    what: Annotated[str, typer.Argument(help="gssc.")],
    pack: Annotated[Path, typer.Argument(help="Folder of the pack to make.")],
    *,
    python: Annotated[
        Path, typer.Option(help="Python of the environment that has it; default: this one.")
    ] = Path(sys.executable),
    check: Annotated[
        Path | None,
        typer.Option(help="Recording to compare on (EDF, XDF); default: a simulated night."),
    ] = None,
    scaling: Annotated[str, typer.Option(help="Samples over their page, or running.")] = "page",
) -> None:
    """Convert a public live stager into a pack on this machine, equal to its own code."""
    from hypnocast_models.adopt.command import adopt_stager

    with writing(pack, own=True):
        made = adopt_stager(
            what, pack, python=python, check=check, scaling=scaling, progress=print_line
        )
    print_line(f"{made.manifest.name} {made.manifest.version} {made.digest} in {pack}")


@app.command("tiny")
def make_tiny(
    kind: Annotated[
        str, typer.Argument(help="llava, llava_next, qwen2_5_vl, smolvlm, idefics3, clip, siglip.")
    ],
    folder: Annotated[Path, typer.Argument(help="Where weights and tokenizer go.")],
    seed: int = 0,
) -> None:
    """Write a small random model of a family, to try the tools on or to train from scratch."""
    import torch

    from hypnocast_models.tune.families import check_tiny, tiny

    check_tiny(kind)
    torch.manual_seed(seed)
    with writing(folder, own=True):
        tiny(kind, folder)
    print_line(f"{kind} in {folder}")


@app.command("finetune")
def finetune(
    weights: Annotated[Path, typer.Argument(help="Local folder of weights and tokenizer.")],
    database: Annotated[
        Path,
        typer.Argument(
            help="An archive of scored nights that a reader knows, pages of `draw`, corrected "
            "nights, or several of these."
        ),
    ],
    out: Annotated[Path, typer.Argument(help="Where checkpoints and the tuned weights go.")],
    *,
    recipe: Annotated[
        str, typer.Option(help="small, paper-llava-next, paper-clip, sleepvlm, or a file.")
    ] = "small",
    kind: Annotated[str, typer.Option(help="The archive's reader, where it is not plain.")] = "",
    hypnograms: Annotated[
        Path | None, typer.Option(help="Folder of files with the stages, named as the nights.")
    ] = None,
    mains: Mains = 50,
    without: Annotated[list[str] | None, typer.Option(help="Subjects held out.")] = None,
    pages: Annotated[str | None, typer.Option(help="How pages are drawn.")] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of staging.")] = None,
    batch: Annotated[int | None, typer.Option(help="Pages at once.")] = None,
    accumulate: Annotated[int | None, typer.Option(help="Batches a step.")] = None,
    learning_rate: float | None = None,
    lora_rank: Annotated[int | None, typer.Option(help="0 trains every weight.")] = None,
    bf16: Annotated[bool, typer.Option(help="Compute in bfloat16.")] = False,
    perception_steps: Annotated[
        int | None, typer.Option(help="First learn to read band power and amplitude.")
    ] = None,
    validate: Annotated[
        float | None, typer.Option(help="Share of the subjects that judge while it trains.")
    ] = None,
    every: Annotated[int | None, typer.Option(help="Steps between checkpoints.")] = None,
    seed: int | None = None,
    log: Annotated[
        list[str] | None, typer.Option(help="Also to tensorboard, wandb or mlflow.")
    ] = None,
) -> None:
    """Fine-tune a vision-language model on scored pages; goes on from its last checkpoint.

    A recipe holds every number; options replace single ones. With `accelerate launch -m
    hypnocast_models.cli finetune …` it runs on several GPUs.
    """
    from hypnocast.core.pictures.recipe import builtin
    from hypnocast_models.readers.material import open_material, without_subjects
    from hypnocast_models.tune.recipe import read_training, training_toml
    from hypnocast_models.tune.session import TuningSession, cast_of, check_machine

    given = {
        "pages": pages,
        "steps": steps,
        "batch": batch,
        "accumulate": accumulate,
        "learning_rate": learning_rate,
        "lora_rank": lora_rank,
        "precision": "bf16" if bf16 else None,
        "perception_steps": perception_steps,
        "validate": validate,
        "every": every,
        "seed": seed,
    }
    training = read_training(recipe, given)
    check_machine(training)
    for program in log or ():
        _need_logger(program)
    nights = open_material(database, builtin(training.pages), kind, hypnograms)
    cast = cast_of(without_subjects(nights, without or ()), training, without or ())
    print_line(training_toml(training).rstrip())
    session = TuningSession(weights, training)
    with writing(out, keep=True), progress_bars() as progress, stopped_cleanly():
        bar = progress.add_task("fine-tuning", total=training.total_steps)
        session.train(
            database,
            cast,
            out,
            mains_hz=mains,
            report_to=log or (),
            advance=lambda step, loss: progress.update(
                bar, completed=step, description=f"fine-tuning, loss {loss:.3f}"
            ),
        )
    print_line(
        f"tuned weights in {out / 'weights'}; held out: {', '.join(without or ()) or 'nobody'}"
    )


@app.command("learn")
def learn_nights(
    weights: Annotated[Path, typer.Argument(help="Local folder of weights and tokenizer.")],
    nights: Annotated[
        Path, typer.Argument(help="Corrected nights, nights with weak labels, recordings.")
    ],
    out: Annotated[Path, typer.Argument(help="The run, both packs and the figures go here.")],
    *,
    held_out: Annotated[list[str], typer.Option(help="Who judges before and after; repeat.")],
    name: Annotated[str, typer.Option(help="Name of the pack.")],
    version: str = "0.1.0",
    recipe: Annotated[str, typer.Option(help="Recipe of the training, or a file.")] = "small",
    pages: Annotated[str | None, typer.Option(help="How pages are drawn.")] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of staging.")] = None,
    batch: Annotated[int | None, typer.Option(help="Pages at once.")] = None,
    learning_rate: float | None = None,
    lora_rank: Annotated[int | None, typer.Option(help="0 trains every weight.")] = None,
    seed: int | None = None,
    mains: Annotated[int, typer.Option(help="Mains frequency, 50 or 60 Hz.")] = 50,
    min_coverage: Annotated[float | None, typer.Option(help="For judging; else 0.8.")] = None,
) -> None:
    """Learn from a lab's own nights, and judge before and after on people held out."""
    from hypnocast_models.tune.learn import Lesson, learn
    from hypnocast_models.tune.recipe import read_training

    given = {
        "pages": pages,
        "steps": steps,
        "batch": batch,
        "learning_rate": learning_rate,
        "lora_rank": lora_rank,
        "seed": seed,
    }
    training = read_training(recipe, given)
    lesson = Lesson(weights, nights, held_out, training, mains, min_coverage)
    with writing(out, keep=True), progress_bars() as progress:
        task = progress.add_task("learning", total=training.total_steps)
        found = learn(
            lesson,
            out,
            name=name,
            version=version,
            progress=print_line,
            advance=lambda step, loss: progress.update(
                task, completed=step, description=f"learning, loss {loss:.3f}"
            ),
        )
    for who, count in found.teachers.items():
        print_line(f"taught by {who}: {count} pages")
    before, after = (found.to_json()[when]["kappa"][0] for when in ("before", "after"))
    print_line(f"{', '.join(held_out)}: κ {before:.3f} before, {after:.3f} after")
    print_line(f"{name} {version} {found.pack.digest} in {found.pack.folder}")


def _need_logger(program: str) -> None:
    from importlib.util import find_spec

    known = ("tensorboard", "wandb", "mlflow")
    if program not in known:
        raise CommandError(
            f"{program!r} is none of {', '.join(known)}", where="--log", remedy="Name one of them."
        )
    if find_spec(program) is None:
        raise InstallError(
            f"{program} is not installed", where="--log", remedy=f"Run `pip install {program}`."
        )


if __name__ == "__main__":
    main()
