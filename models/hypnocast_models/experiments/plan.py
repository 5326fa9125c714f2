"""What an experiment is: the keys of its TOML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from hypnocast.core.pictures.recipe import builtin
from hypnocast.core.types import Role
from hypnocast.errors import ConfigError, RecipeError

Name = Annotated[str, Meta(pattern="^[a-z0-9][a-z0-9+-]{0,39}$")]
Kind = Literal["noise", "dropout", "drift", "mains", "clipping", "detached"]
Family = Literal["net", "signal", "pack"]
Share = Annotated[float, Meta(ge=0.0, le=0.95)]
Count = Annotated[int, Meta(ge=1)]


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


class Arm(Struct, frozen=True, forbid_unknown_fields=True):
    """One way to stage: what is compared."""

    name: Name
    family: Family = "net"
    """``net``: two layers over the picture in 8-px tiles; ``signal``: gradient boosting on band
    powers; ``pack``: a pack as it is."""
    recipe: str = "spectral-448"
    channels: tuple[Role, ...] = ()
    """Only these; empty for all there are."""
    grey: bool = False
    context: Annotated[int, Meta(ge=0, le=8)] = 0
    """Pages before, shown along."""
    pack: str = ""
    """Folder of the pack, below the folder of packs given on the command line; ``{fold}`` is
    replaced by the fold whose subjects it has not seen."""


class Corruption(Struct, frozen=True, forbid_unknown_fields=True):
    """Which damage is done to test pages, and to how much of each."""

    arms: tuple[Name, ...]
    kinds: tuple[Kind, ...]
    shares: tuple[Share, ...]
    pages: int = 0
    """How many of each test night in a row; 0 for all."""


class Experiment(Struct, frozen=True, forbid_unknown_fields=True):
    """A whole experiment."""

    title: str
    data: Data
    arm: Annotated[tuple[Arm, ...], Meta(min_length=1)]
    folds: Annotated[int, Meta(ge=2, le=20)] = 4
    """Subjects are dealt to folds by the number in their name; no subject is on both sides."""
    seeds: Annotated[tuple[int, ...], Meta(min_length=1)] = (0,)
    mains_hz: Literal[50, 60] = 50
    corruption: Corruption | None = None
    cross: Data | None = None
    """Another data set, on which the arms trained on all of ``data`` are judged."""


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
    return plan


def _faults(plan: Experiment) -> list[tuple[str, str]]:
    names = [arm.name for arm in plan.arm]
    faults = [("two arms have one name", "arm")] if len(set(names)) < len(names) else []
    for arm in plan.arm:
        try:
            recipe = builtin(arm.recipe)
        except RecipeError as error:
            faults.append((error.what, f"arm {arm.name}: recipe"))
            continue
        missing = set(arm.channels) - set(recipe.roles)
        if missing:
            listed = ", ".join(sorted(missing))
            faults.append((f"{arm.recipe} does not draw {listed}", f"arm {arm.name}: channels"))
        if (arm.family == "pack") != bool(arm.pack):
            faults.append(("a pack arm, and only that, names its pack", f"arm {arm.name}: pack"))
    if (plan.data.kind == "simulated") == bool(plan.data.folder):
        faults.append(("names a folder, unless its kind is simulated", "data"))
    if plan.corruption is not None:
        unknown = set(plan.corruption.arms) - set(names)
        faults += [(f"there is no arm {name!r}", "corruption.arms") for name in sorted(unknown)]
    return faults
