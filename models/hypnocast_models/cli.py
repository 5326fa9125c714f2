"""``hypnocast-models``: from scored recordings to a verified pack."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hypnocast.errors import HypnocastError
from hypnocast_models.research import research

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

app = typer.Typer(
    help="From scored recordings to a verified pack: draw, train, export, judge.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
small = typer.Typer(help="The small pack that ships: docs/training.md has the whole sequence.")
app.add_typer(small, name="small", no_args_is_help=True)
app.add_typer(research)

Data = Annotated[
    Path, typer.Argument(envvar="HYPNOCAST_DATA", help="Folder of the scored databases.")
]
Cache = Annotated[Path, typer.Option(help="Folder of drawn pages.")]
Runs = Annotated[Path, typer.Option(help="Folder of trained models and their judgements.")]


def main() -> None:
    """Run a command; an error is one line on standard error."""
    try:
        app()
    except HypnocastError as error:
        print(f"hypnocast-models: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None


@contextmanager
def _progress() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield progress


def _say(line: str) -> None:
    typer.echo(line)


# --- the small pack -------------------------------------------------------------------------------


@small.command("pages")
def small_pages(data: Data, cache: Cache = Path("cache")) -> None:
    """Draw the pages that the small pack is trained on; goes on where it stopped."""
    from hypnocast.core.recipe import builtin
    from hypnocast_models.data import open_recordings
    from hypnocast_models.pages import draw_simulated, fill_cache
    from hypnocast_models.small import regimen
    from hypnocast_models.small.ship import RECIPE
    from hypnocast_models.small.sources import HELD_OUT, SLEEP_EDF, UCDDB

    recipe = builtin(RECIPE)
    rows = open_recordings(data / SLEEP_EDF)
    whole = open_recordings(data / UCDDB, without=HELD_OUT)
    with _progress() as progress:
        for kind, nights in (("rows", rows), ("stitched", rows), ("whole", whole)):
            plan = regimen.PLANS[kind]
            total = sum(len(n.stages) for n in nights) * len(plan.gains)
            bar = progress.add_task(kind, total=total)
            fill_cache(
                nights,
                plan,
                recipe,
                cache / kind,
                seed=regimen.SEED,
                advance=partial(progress.advance, bar),
            )
        people, length = regimen.SIMULATED_PEOPLE, regimen.SIMULATED_PAGES
        bar = progress.add_task("simulated", total=len(people) * length)
        draw_simulated(
            people,
            length,
            recipe,
            cache / "simulated",
            seed=regimen.SEED,
            advance=partial(progress.advance, bar),
        )


@small.command("train")
def small_train(
    cache: Cache = Path("cache"),
    runs: Runs = Path("runs"),
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
) -> None:
    """Train the models of the cross-validation and the one that ships; resumable."""
    import torch

    from hypnocast_models.small import crossval, regimen

    torch.set_num_threads(threads)
    with _progress() as progress:
        bars: dict[str, TaskID] = {}

        def advance(name: str, step: int, loss: float) -> None:
            if name not in bars:
                bars[name] = progress.add_task(name, total=_steps(name))
            progress.update(bars[name], completed=step, description=f"{name} loss {loss:.2f}")

        crossval.train_all(cache, runs, advance)
        regimen.train_without(
            cache,
            runs / "final",
            (),
            regimen.FINAL_STEPS,
            advance=partial(advance, "final"),
        )


def _steps(name: str) -> int:
    from hypnocast_models.small import regimen

    if name == "final":
        return regimen.FINAL_STEPS
    return regimen.PAIR_STEPS if name.startswith("pair") else regimen.FOLD_STEPS


@small.command("judge")
def small_judge(
    data: Data,
    *,
    cache: Cache = Path("cache"),
    runs: Runs = Path("runs"),
    commit: Annotated[str, typer.Option(help="Commit of the code that trained.")] = "0" * 40,
    gain: Annotated[list[float] | None, typer.Option(help="Gains to judge at.")] = None,
    fold: Annotated[list[int] | None, typer.Option(help="Only these folds.")] = None,
) -> None:
    """Stage every night with the exported pack of the fold that has not seen it."""
    from hypnocast_models.data import open_recordings
    from hypnocast_models.small import trial
    from hypnocast_models.small.sources import FOLDS, SLEEP_EDF, fold_of

    nights = open_recordings(data / SLEEP_EDF)
    gains = gain or [1.0]
    with _progress() as progress:
        for each in fold if fold is not None else range(FOLDS):
            mine = [n for n in nights if fold_of(n.subject) == each]
            total = len(gains) * sum(len(n.stages) for n in mine)
            bar = progress.add_task(f"fold {each}", total=total)
            trial.judge_fold(
                cache,
                runs,
                each,
                mine,
                gains=gains,
                commit=commit,
                advance=partial(progress.advance, bar),
            )


@small.command("figures")
def small_figures(
    data: Data,
    runs: Runs = Path("runs"),
    out: Annotated[Path, typer.Option(help="Where the figures go.")] = Path("figures.json"),
) -> None:
    """Work out the figures of the cross-validation, beside the baseline's."""
    import json

    from hypnocast_models import figures
    from hypnocast_models.data import open_recordings
    from hypnocast_models.evaluate import rounded
    from hypnocast_models.small import trial
    from hypnocast_models.small.sources import SLEEP_EDF

    nights = open_recordings(data / SLEEP_EDF)
    ours, alone = trial.read_fold_nights(runs, nights, 1.0)
    baseline = trial.judge_baseline(nights)
    difference = figures.bootstrap_difference(ours, baseline)
    result: dict[str, Any] = {
        "min_coverage": trial.MIN_COVERAGE,
        "small": trial.report(ours),
        "small_unfiltered": trial.report(alone),
        "gradient_boosting": trial.report(baseline),
        "majority": trial.report(trial.judge_majority(nights)),
        "kappa_ahead_of_gradient_boosting": rounded(difference),
    }
    out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for name in ("small", "small_unfiltered", "gradient_boosting", "majority"):
        typer.echo(f"{name:20s} κ {result[name]['kappa']} macro-F1 {result[name]['macro_f1']}")
    typer.echo(f"ahead of gradient boosting by κ {difference}")


@small.command("ship")
def small_ship(
    data: Data,
    pack: Annotated[Path, typer.Option(help="Folder of the pack; its CARD.md becomes part of it.")],
    *,
    version: Annotated[str, typer.Option(help="Version of the pack.")],
    cache: Cache = Path("cache"),
    runs: Runs = Path("runs"),
    figures: Annotated[Path, typer.Option(help="Figures of the trial.")] = Path("figures.json"),
    commit: Annotated[str, typer.Option(help="Commit of the code that trained.")] = "0" * 40,
) -> None:
    """Export the model trained on everything, with its calibration, into the pack."""
    from hypnocast_models.small import crossval
    from hypnocast_models.small.regimen import train_without
    from hypnocast_models.small.ship import Shipment, lay_logs, provenance, ship, trial_metrics
    from hypnocast_models.small.sources import open_sources

    final = runs / "final"
    model, _ = train_without(cache, final, ())
    shipment = Shipment(
        version=version,
        calibration=crossval.calibrate_final(cache, runs, final),
        provenance=provenance(
            open_sources(data), commit, "hypnocast-models small: see docs/training.md"
        ),
        metrics=trial_metrics(figures),
    )
    lay_logs(runs, figures, pack)
    made, _ = ship(model, shipment, pack, _say)
    _say(f"{made.manifest.name} {made.manifest.version} {made.digest}")


@small.command("montages")
def small_montages(
    pack: Annotated[Path, typer.Argument(help="Folder of the pack.")],
) -> None:
    """Show agreement with the simulator as channels come and go; never to be called accuracy."""
    from hypnocast.stagers.pack import load_pack
    from hypnocast_models.small.simulated import MONTAGES, PAGES, PEOPLE, judge_montages

    with _progress() as progress:
        bar = progress.add_task("simulated", total=len(MONTAGES) * len(PEOPLE) * PAGES)
        found = judge_montages(load_pack(pack), advance=partial(progress.advance, bar))
    _say("agreement with the simulator on simulated pages (not accuracy)")
    for name, (kappa, share) in found.items():
        _say(f"{name:18s} κ {kappa:.3f}  pages {share:.3f}")


@app.command("time")
def time_pack(
    pack: Annotated[Path, typer.Argument(help="Folder of the pack.")],
    *,
    rounds: Annotated[int, typer.Option(help="Rounds; the median is shown.")] = 30,
) -> None:
    """Measure milliseconds a page on one core, alone and in a batch of 8 beds."""
    from hypnocast.stagers.pack import load_pack
    from hypnocast_models.timing import time_per_page

    loaded = load_pack(pack)
    for beds in (1, 8):
        _say(f"batch of {beds}: {time_per_page(loaded, beds, rounds):.2f} ms a page")


@app.command("evaluate")
def evaluate_pack(
    pack: Annotated[Path, typer.Argument(help="Folder of the pack.")],
    database: Annotated[Path, typer.Argument(help="Folder of scored recordings (*.npz).")],
    *,
    subject: Annotated[list[str] | None, typer.Option(help="Only these subjects.")] = None,
    gain: Annotated[list[float] | None, typer.Option(help="Multiply all samples by this.")] = None,
    min_coverage: Annotated[
        float | None, typer.Option(help="Instead of the pack's own; recorded.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the figures here as JSON.")] = None,
) -> None:
    """Judge a pack on scored nights, on the stream that the daemon would emit."""
    import json

    from hypnocast.stagers.pack import load_pack
    from hypnocast_models import evaluate as judging
    from hypnocast_models.data import open_recordings

    loaded = load_pack(pack)
    nights = [n for n in open_recordings(database) if subject is None or n.subject in subject]
    result: dict[str, Any] = {"pack": loaded.digest, "min_coverage": min_coverage, "gains": {}}
    with _progress() as progress:
        for each in gain or [1.0]:
            bar = progress.add_task(f"×{each:g}", total=sum(len(n.stages) for n in nights))
            made = judging.evaluate(
                loaded,
                nights,
                gain=each,
                min_coverage=min_coverage,
                advance=partial(progress.advance, bar),
            )
            result["gains"][f"{each:g}"] = {
                "filtered": judging.summarise(made.scored),
                "unfiltered": judging.summarise(made.unfiltered),
            }
    for each, found in result["gains"].items():
        both = [f"{how} κ {found[how]['kappa'][0]:.3f}" for how in ("filtered", "unfiltered")]
        _say(f"×{each}: {', '.join(both)}, coverage {found['filtered']['coverage']:.3f}")
    if out is not None:
        out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


@app.command("yasa")
def judge_yasa(
    database: Annotated[Path, typer.Argument(help="Folder of scored recordings (*.npz).")],
    *,
    subject: Annotated[list[str] | None, typer.Option(help="Only these subjects.")] = None,
    gain: Annotated[list[float] | None, typer.Option(help="Multiply all samples by this.")] = None,
) -> None:
    """Say what YASA makes of the same nights; it sees each whole night at once."""
    from hypnocast_models import figures
    from hypnocast_models.data.recordings import open_recordings
    from hypnocast_models.yasa_baseline import stage_with_yasa

    nights = [n for n in open_recordings(database) if subject is None or n.subject in subject]
    for each in gain or [1.0]:
        tables = [
            figures.confusion(n.stages.astype("int64"), stage_with_yasa(n, each)) for n in nights
        ]
        _say(f"×{each:g}: YASA κ {figures.kappa(sum(tables[1:], tables[0])):.3f}")


@app.command("baseline")
def judge_baseline(
    database: Annotated[Path, typer.Argument(help="Folder of scored recordings (*.npz).")],
) -> None:
    """Say what gradient boosting on signal features makes of a database, by the same folds."""
    from hypnocast_models.data import open_recordings
    from hypnocast_models.small import trial

    found = trial.report(trial.judge_baseline(open_recordings(database)))
    _say(f"gradient boosting κ {found['kappa']} macro-F1 {found['macro_f1']}")
    _say(f"subjects {found['subjects']}")


# --- models of any family -------------------------------------------------------------------------


@app.command("tiny")
def make_tiny(
    kind: Annotated[
        str, typer.Argument(help="llava, llava_next, qwen2_5_vl, smolvlm, clip, siglip.")
    ],
    folder: Annotated[Path, typer.Argument(help="Where weights and tokenizer go.")],
    seed: int = 0,
) -> None:
    """Write a small random model of a family, to try the tools on or to train from scratch."""
    import torch

    from hypnocast_models.tune.families import tiny

    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    tiny(kind, folder)
    _say(f"{kind} in {folder}")


@app.command("finetune")
def finetune(
    weights: Annotated[Path, typer.Argument(help="Local folder of weights and tokenizer.")],
    database: Annotated[Path, typer.Argument(help="Folder of scored recordings (*.npz).")],
    out: Annotated[Path, typer.Argument(help="Where checkpoints and the tuned weights go.")],
    *,
    recipe: Annotated[str, typer.Option(help="How pages are drawn.")] = "clinical-448x224",
    without: Annotated[list[str] | None, typer.Option(help="Subjects held out.")] = None,
    steps: int = 1000,
    batch: int = 8,
    accumulate: int = 1,
    learning_rate: float = 1e-4,
    lora_rank: Annotated[int, typer.Option(help="0 trains every weight.")] = 16,
    bf16: Annotated[bool, typer.Option(help="Compute in bfloat16.")] = False,
    perception_steps: Annotated[
        int, typer.Option(help="First learn to read band power and amplitude off the page.")
    ] = 0,
    seed: int = 0,
) -> None:
    """Fine-tune a vision-language model on scored pages; goes on from its last checkpoint.

    With `accelerate launch -m hypnocast_models.cli finetune …` it runs on several GPUs.
    """
    from hypnocast.core.recipe import builtin
    from hypnocast_models.data import open_recordings
    from hypnocast_models.tune.loop import Course
    from hypnocast_models.tune.session import Session

    course = Course(
        steps=steps,
        batch=batch,
        accumulate=accumulate,
        learning_rate=learning_rate,
        bf16=bf16,
        perception_steps=perception_steps,
        seed=seed,
    )
    nights = open_recordings(database, without=frozenset(without or ()))
    session = Session(weights, builtin(recipe), lora_rank)
    with _progress() as progress:
        bar = progress.add_task("fine-tuning", total=perception_steps + steps)
        session.train(
            nights,
            course,
            out,
            lambda step, loss: progress.update(
                bar, completed=step, description=f"fine-tuning, loss {loss:.3f}"
            ),
        )
    _say(f"tuned weights in {out / 'weights'}; held out: {', '.join(without or ()) or 'nobody'}")


@app.command("export")
def export(
    weights: Annotated[Path, typer.Argument(help="Local folder of weights and tokenizer.")],
    pack: Annotated[Path, typer.Argument(help="Folder of the pack; a CARD.md there becomes part.")],
    *,
    name: Annotated[str, typer.Option(help="Name of the pack.")],
    version: str = "0.1.0",
    recipe: Annotated[str, typer.Option(help="How pages are drawn.")] = "clinical-448x224",
    precision: Annotated[str, typer.Option(help="fp32, fp16, int8 or int4.")] = "fp32",
    commit: Annotated[str, typer.Option(help="Commit of the code that trained.")] = "0" * 40,
) -> None:
    """Export a model into a pack: the graphs, parity with PyTorch, every input's shape."""
    from hypnocast.core.recipe import builtin
    from hypnocast_models.export.precision import lower
    from hypnocast_models.tune.deliver import deliver, plain_label
    from hypnocast_models.tune.families import load

    model, tokenizer = load(weights)
    label = plain_label(name, version, builtin(recipe), commit)
    made = deliver(model, tokenizer, weights / "tokenizer.json", label, pack, say=_say)
    if precision != "fp32":
        made = lower(made, precision, _say)
    _say(f"{made.manifest.name} {made.manifest.version} {made.digest}")


if __name__ == "__main__":
    main()
