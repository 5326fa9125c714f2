"""``hypnocast-models small``: the sequence that leads from data to the pack that ships."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from hypnocast.commands.output import writing
from hypnocast_models.commands.screen import print_line, progress_bars

small = typer.Typer(help="The small pack that ships: docs/training.md has the whole sequence.")

Data = Annotated[
    Path, typer.Argument(envvar="HYPNOCAST_DATA", help="Folder of the scored databases.")
]
Cache = Annotated[Path, typer.Option(help="Folder of drawn pages.")]
Runs = Annotated[Path, typer.Option(help="Folder of trained models and their judgements.")]


@small.command("pages")
def small_pages(data: Data, cache: Cache = Path("cache")) -> None:
    """Draw the pages that the small pack is trained on; goes on where it stopped."""
    from hypnocast.core.pictures.recipe import builtin
    from hypnocast_models.data import open_recordings
    from hypnocast_models.data.pages import draw_simulated, fill_cache
    from hypnocast_models.small import regimen
    from hypnocast_models.small.ship import TRAINING_RECIPE
    from hypnocast_models.small.sources import HELD_OUT, SLEEP_EDF, UCDDB

    recipe = builtin(TRAINING_RECIPE)
    rows = open_recordings(data / SLEEP_EDF)
    whole = open_recordings(data / UCDDB, without=HELD_OUT)
    with writing(cache, keep=True), progress_bars() as progress:
        for kind, nights in (("rows", rows), ("stitched", rows), ("whole", whole)):
            plan = regimen.PLANS[kind]
            total = sum(len(n.stages) for n in nights) * plan.variants
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
    """Train in every way without each pair of folds, choose by that, and train what was chosen.

    Goes on where it was interrupted.
    """
    from itertools import combinations

    import torch

    from hypnocast_models.small.choose import choose
    from hypnocast_models.small.crossval import fold_folder, pair_folder
    from hypnocast_models.small.regimen import PLANS, WAYS, Way, open_drawn_nights, train_without
    from hypnocast_models.small.sources import FOLDS

    torch.set_num_threads(threads)
    with writing(runs, keep=True), progress_bars() as progress:

        def trained(
            folder: Path,
            without: tuple[int, ...],
            way: Way,
            steps: int,
            kinds: Sequence[str] = tuple(PLANS),
        ) -> None:
            name = f"{folder.parent.name} {folder.name}"
            bar = progress.add_task(name, total=steps)

            def advance(step: int, loss: float) -> None:
                progress.update(bar, completed=step, description=f"{name} loss {loss:.2f}")

            train_without(cache, folder, without, way, steps, kinds=kinds, advance=advance)
            progress.update(bar, completed=steps)

        for way in WAYS:
            for pair in combinations(range(FOLDS), 2):
                trained(pair_folder(runs, way, *pair), pair, way, way.pair_steps, ["rows"])
        drawn_nights = open_drawn_nights(cache, "rows")
        last = choose(runs, None, drawn_nights)
        ways = [choose(runs, fold, drawn_nights).trained for fold in range(FOLDS)]
        for fold in range(FOLDS):
            for way in dict.fromkeys((ways[fold], last.trained)):
                trained(fold_folder(runs, way, fold), (fold,), way, way.fold_steps)
        trained(runs / last.way / "final", (), last.trained, last.trained.final_steps)


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
    with writing(runs, keep=True), progress_bars() as progress:
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

    from hypnocast.ports.durable_files import replace_file
    from hypnocast_models.compare import figures
    from hypnocast_models.compare.evaluate import rounded
    from hypnocast_models.data import open_recordings
    from hypnocast_models.scorers import beside
    from hypnocast_models.small import trial
    from hypnocast_models.small.regimen import SEED
    from hypnocast_models.small.sources import SLEEP_EDF, fold_of

    nights = open_recordings(data / SLEEP_EDF)
    ours, alone = trial.read_fold_nights(runs, nights, 1.0)
    baseline = beside.gradient_boosting(nights, nights, SEED, fold_of)
    difference = figures.bootstrap_difference(ours, baseline)
    result: dict[str, Any] = {
        "min_coverage": trial.MIN_COVERAGE,
        "small": trial.report(ours),
        "small_unfiltered": trial.report(alone),
        "gradient_boosting": trial.report(baseline),
        "majority": trial.report(beside.majority(nights)),
        "kappa_ahead_of_gradient_boosting": rounded(difference),
    }
    with writing(out):
        replace_file(out, (json.dumps(result, indent=1) + "\n").encode(), mode=0o666)
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
    from hypnocast_models.small.choose import choose
    from hypnocast_models.small.regimen import open_drawn_nights, recall
    from hypnocast_models.small.ship import Shipment, lay_logs, provenance, ship, trial_metrics
    from hypnocast_models.small.sources import open_sources

    choice = choose(runs, None, open_drawn_nights(cache, "rows"))
    model = recall(runs / choice.way / "final")
    shipment = Shipment(
        version=version,
        calibration=crossval.calibrate_final(cache, runs, choice.trained, choice.weights),
        provenance=provenance(
            open_sources(data), commit, "hypnocast-models small: see docs/training.md"
        ),
        metrics=trial_metrics(figures),
    )
    with writing(pack, own=True):
        lay_logs(runs, figures, pack)
        made, _ = ship(model, shipment, pack, print_line)
    print_line(f"{made.manifest.name} {made.manifest.version} {made.digest}")


@small.command("pool")
def small_pool(
    data: Data,
    pack: Annotated[Path, typer.Option(help="Folder of the pack; its pack.toml is written anew.")],
    *,
    share: Annotated[float, typer.Option(min=0, max=1, help="The filter's, on a whole page.")],
    own: Annotated[float, typer.Option(min=0, max=1, help="The model's own, on a whole page.")] = 0,
    power: Annotated[float, typer.Option(min=0.01, help="Power of the filter's emissions.")],
    version: Annotated[str, typer.Option(help="Version of the pack with its new decider.")],
) -> None:
    """Put a forward filter over real transitions beside a pack's logistic, for whole pages."""
    import msgspec

    from hypnocast.errors import CommandError
    from hypnocast.stagers.packs.pack import load_pack
    from hypnocast_models.export.packing import write_pack
    from hypnocast_models.export.sequence import pooled, real_filter
    from hypnocast_models.small.sources import HYPNOGRAMS

    if share + own > 1.0:
        raise CommandError(f"{share:g} + {own:g} is more than the whole", where="--share, --own")
    manifest = load_pack(pack).manifest
    facts = msgspec.to_builtins(manifest)
    for key in ("format", "files"):
        del facts[key]
    calibration = pooled(manifest.calibration, real_filter(data / HYPNOGRAMS, power), share, own)
    facts |= {"version": version, "calibration": msgspec.to_builtins(calibration)}
    with writing(pack):
        made = write_pack(pack, facts)
    print_line(f"{made.manifest.name} {made.manifest.version} {made.digest}")


@small.command("pretrained")
def small_pretrained(
    data: Data,
    *,
    cache: Cache = Path("cache"),
    runs: Runs = Path("runs"),
    fold: Annotated[list[int] | None, typer.Option(help="Only these folds.")] = None,
    steps: Annotated[int, typer.Option(min=10, help="Steps of every model.")] = 300,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
) -> None:
    """Compare towers that know everyday pictures with random ones; goes on where it stopped."""
    import torch

    from hypnocast.core.pictures.recipe import builtin
    from hypnocast_models.data import open_recordings
    from hypnocast_models.data.pages import fill_cache
    from hypnocast_models.small import pretrained, regimen
    from hypnocast_models.small.ship import TRAINING_RECIPE
    from hypnocast_models.small.sources import FOLDS, SLEEP_EDF

    torch.set_num_threads(threads)
    folder = cache / "pretrained"
    nights = open_recordings(data / SLEEP_EDF)
    with writing(cache, runs, keep=True), progress_bars() as progress:
        bar = progress.add_task("pages", total=sum(len(night.stages) for night in nights))
        fill_cache(
            nights,
            pretrained.PAGES,
            builtin(TRAINING_RECIPE),
            folder,
            seed=regimen.SEED,
            advance=partial(progress.advance, bar),
        )
        bar = progress.add_task("training", total=steps)

        def advance(arm: pretrained.PretrainedArm, fold: int, step: int, loss: float) -> None:
            text = f"{arm.structure} {arm.eye}, fold {fold}, loss {loss:.2f}"
            progress.update(bar, completed=step, description=text)

        folds = list(range(FOLDS)) if fold is None else fold
        trial = pretrained.PretrainedTrial(
            pretrained.open_pages(folder), runs / "pretrained", steps
        )
        found = pretrained.run_trial(trial, folds, advance)
    for name, arm in found["arms"].items():
        print_line(f"{name}: κ {arm['kappa']}, minus the small tower {arm['minus_small_tower']}")


@small.command("montages")
def small_montages(
    pack: Annotated[Path, typer.Argument(help="Folder of the pack.")],
) -> None:
    """Show agreement with the simulator as channels come and go; never to be called accuracy."""
    from hypnocast.stagers.packs.pack import load_pack
    from hypnocast_models.small.simulated import MONTAGES, PAGES, PEOPLE, judge_montages

    with progress_bars() as progress:
        bar = progress.add_task("simulated", total=len(MONTAGES) * len(PEOPLE) * PAGES)
        found = judge_montages(load_pack(pack), advance=partial(progress.advance, bar))
    print_line("agreement with the simulator on simulated pages (not accuracy)")
    for name, (kappa, share) in found.items():
        print_line(f"{name:18s} κ {kappa:.3f}  pages {share:.3f}")
