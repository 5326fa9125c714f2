"""What an experiment is: the keys of its TOML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from hypnocast.core.pictures.recipe import builtin
from hypnocast.core.types import EEG_ROLES, Role
from hypnocast.errors import ConfigError, RecipeError
from hypnocast_models.tune.recipe import read_training

Name = Annotated[str, Meta(pattern="^[a-z0-9][a-z0-9+-]{0,39}$")]
Kind = Literal["noise", "dropout", "drift", "mains", "clipping", "detached"]
Family = Literal["net", "signal", "pack", "tuned"]
Share = Annotated[float, Meta(ge=0.0, le=0.95)]
Count = Annotated[int, Meta(ge=1)]
_DRAWN = "spectral-448"


class Data(Struct, frozen=True, forbid_unknown_fields=True):
    """Which nights, and how much of each."""

    folder: str = ""
    """Below the folder given on the command line."""
    kind: str = ""
    """The data set's reader, where the files do not show it; ``simulated``: no files, but as many
    simulated people as ``subjects`` gives."""
    without: tuple[str, ...] = ()
    """Subjects left out."""
    subjects: int = 0
    """How many, the first by name; 0 for all."""
    nights: Count = 1
    """How many of each subject."""
    pages: int = 0
    """How many of each night in a row, around its middle; 0 for all."""

    @property
    def name(self) -> str:
        """What the archive is called in tables."""
        return self.folder or self.kind


class Arm(Struct, frozen=True, forbid_unknown_fields=True):
    """One way to stage: what is compared."""

    name: Name
    family: Family = "net"
    """``net``: two layers over the picture in 8-px tiles; ``signal``: gradient boosting on band
    powers; ``pack``: a pack as it is; ``tuned``: a vision-language model, fine-tuned on the other
    folds' subjects and exported."""
    recipe: str = ""
    """How pages are drawn; by itself ``spectral-448``, and for a tuned arm what its training says.
    A pack has its own."""
    channels: tuple[Role, ...] = ()
    """Only these; empty for all there are."""
    grey: bool = False
    context: Annotated[int, Meta(ge=0, le=8)] = 0
    """Pages before, shown along."""
    pack: str = ""
    """Folder of the pack, below the folder of packs given on the command line; ``{fold}`` stands
    for the fold whose subjects it has not seen."""
    weights: str = ""
    """Folder of the weights that are tuned, below the folder of packs."""
    training: str = "small"
    """Recipe of training, by name or as a file; the plan's seed goes before its own."""
    change: dict[str, Any] = {}
    """Values of that recipe that are others here, as ``steps`` or ``lora_rank``."""


class Corruption(Struct, frozen=True, forbid_unknown_fields=True):
    """Which damage is done to test pages, and to how much of each."""

    arms: tuple[Name, ...]
    kinds: tuple[Kind, ...]
    shares: tuple[Share, ...]
    pages: int = 0
    """How many of each test night in a row; 0 for all."""


class Ablation(Struct, frozen=True, forbid_unknown_fields=True):
    """Which channels are taken from test pages; nothing is trained anew."""

    arms: tuple[Name, ...]
    without: tuple[Annotated[tuple[Role, ...], Meta(min_length=1)], ...]
    pages: int = 0
    """So many of each test night in a row; 0 for all."""


class ExplainedArms(Struct, frozen=True, forbid_unknown_fields=True):
    """For which packs and tuned models is asked what a stage rests on."""

    arms: tuple[Name, ...]
    pages: Count = 10
    """So many of each test night, spread over its scored ones."""


class Experiment(Struct, frozen=True, forbid_unknown_fields=True):
    """A whole experiment."""

    title: str
    data: Data | tuple[Data, ...]
    """One archive or several: their people are dealt to the same folds."""
    arm: Annotated[tuple[Arm, ...], Meta(min_length=1)]
    folds: Annotated[int, Meta(ge=2, le=20)] = 4
    """Subjects are dealt to folds by the number in their name; no subject is on both sides."""
    seeds: Annotated[tuple[int, ...], Meta(min_length=1)] = (0,)
    mains_hz: Literal[50, 60] = 50
    corruption: Corruption | None = None
    ablation: Ablation | None = None
    explanation: ExplainedArms | None = None
    cross: Data | tuple[Data, ...] = ()
    """Other data sets, on which the arms trained on all of ``data`` are judged."""

    @property
    def archives(self) -> tuple[Data, ...]:
        """Every archive that is dealt to folds."""
        return (self.data,) if isinstance(self.data, Data) else self.data

    @property
    def others(self) -> tuple[Data, ...]:
        """Every archive that only judges."""
        return (self.cross,) if isinstance(self.cross, Data) else self.cross


def read_experiment(path: Path) -> Experiment:
    """Read and check an experiment."""
    try:
        plan = msgspec.toml.decode(path.read_bytes(), type=Experiment)
    except OSError as error:
        raise ConfigError(f"cannot be opened ({error.strerror})", where=str(path)) from error
    except msgspec.ValidationError as error:
        what, _, key = str(error).partition(" - at `")
        key = key.rstrip("`").removeprefix("$").removeprefix(".")
        raise ConfigError(what, where=f"{path}: {key}" if key else str(path)) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"is no TOML: {error}", where=str(path)) from error
    for fault, key in _faults(plan):
        raise ConfigError(fault, where=f"{path}: {key}")
    return msgspec.structs.replace(plan, arm=tuple(_with_recipe(arm) for arm in plan.arm))


def training_changes(arm: Arm, seed: int) -> dict[str, Any]:
    """Give what an arm has otherwise than its recipe of training."""
    drawn = {"pages": arm.recipe} if arm.recipe else {}
    return {**arm.change, **drawn, "seed": seed}


def _with_recipe(arm: Arm) -> Arm:
    if arm.recipe:
        return arm
    tuned = arm.family == "tuned"
    drawn = read_training(arm.training, arm.change).pages if tuned else _DRAWN
    return msgspec.structs.replace(arm, recipe=drawn)


def _faults(plan: Experiment) -> list[tuple[str, str]]:
    names = [arm.name for arm in plan.arm]
    faults = [("two arms have one name", "arm")] if len(set(names)) < len(names) else []
    for arm in plan.arm:
        faults += _faults_of_arm(arm)
    places = [(one, "data") for one in plan.archives] + [(one, "cross") for one in plan.others]
    for data, key in places:
        if (data.kind == "simulated") == bool(data.folder):
            faults.append(("names a folder, unless its kind is simulated", key))
    named = [one.name for one in plan.archives]
    if not named or len(set(named)) < len(named):
        faults.append(("names no archive, or one of them twice", "data"))
    families = {arm.name: arm.family for arm in plan.arm}
    for key, part in (
        ("corruption", plan.corruption),
        ("ablation", plan.ablation),
        ("explanation", plan.explanation),
    ):
        unknown = set(part.arms) - set(names) if part is not None else ()
        faults += [(f"there is no arm {name!r}", f"{key}.arms") for name in sorted(unknown)]
    for name in plan.explanation.arms if plan.explanation is not None else ():
        if families.get(name) in ("net", "signal"):
            faults.append((f"{name} is no pack and no tuned model", "explanation.arms"))
    if plan.ablation is not None:
        blind = any(set(EEG_ROLES) <= set(roles) for roles in plan.ablation.without)
        if blind and any(families.get(name) == "signal" for name in plan.ablation.arms):
            faults.append(("a signal arm needs an EEG", "ablation.without"))
    return faults


def _faults_of_arm(arm: Arm) -> list[tuple[str, str]]:
    where = f"arm {arm.name}"
    faults = [
        (f"a {family} arm, and only that, names its {key}", f"{where}: {key}")
        for family, key, value in (("pack", "pack", arm.pack), ("tuned", "weights", arm.weights))
        if (arm.family == family) != bool(value)
    ]
    try:
        if arm.family == "tuned":
            read_training(arm.training, arm.change)
        elif arm.change:
            faults.append(("only a tuned arm changes its training", f"{where}: change"))
        recipe = builtin(_with_recipe(arm).recipe)
    except (ConfigError, RecipeError) as error:
        return [*faults, (error.what, f"{where}: recipe")]
    missing = set(arm.channels) - set(recipe.roles)
    if missing:
        listed = ", ".join(sorted(missing))
        faults.append((f"{recipe.name} does not draw {listed}", f"{where}: channels"))
    return faults
