"""Recipes: data that is read strictly and distinguished by digest."""

from __future__ import annotations

from importlib.resources import files

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypnocast.core.pictures.recipe import Recipe, builtin, builtin_names
from hypnocast.core.types import Role
from hypnocast.errors import RecipeError


def text_of(name: str) -> str:
    return (files("hypnocast.core.pictures") / "recipes" / f"{name}.toml").read_text(
        encoding="utf-8"
    )


def test_the_recipes_of_the_design_are_built_in() -> None:
    assert builtin_names() == (
        "clinical-448x224",
        "paper-336",
        "spectral-448",
        "spectral-448-one-eeg",
    )
    for name in builtin_names():
        recipe = builtin(name)
        assert recipe.name == name
        assert recipe.tail_s == 1.0
        assert recipe.context_s == 30.0
    assert (builtin("paper-336").width, builtin("paper-336").height) == (336, 336)
    assert Role.ECG in builtin("paper-336").roles
    assert Role.ECG not in builtin("clinical-448x224").roles


def test_the_digest_is_of_the_data_not_of_the_text() -> None:
    text = text_of("clinical-448x224")
    original = Recipe.parse(text, "here").digest
    rewritten = "\n".join(line.partition(" # ")[0] for line in text.splitlines()[1:])
    assert (
        Recipe.parse(rewritten.replace("50.0", "50").replace("  ", " "), "there").digest == original
    )
    assert Recipe.parse(text.replace("50.0", "51.0", 1), "here").digest != original
    assert original.startswith("sha256:")
    assert len(original) == 71


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ('colour = "#FFFF00"', 'colour = "yellow"', "bands[0].colour"),
        ("half_span_uv = 40.0", "half_span_uv = -40.0", "bands[5].half_span_uv"),
        ('role = "O2-M1"', 'role = "Oz"', "bands[2].role"),
        ('scaling = "fixed"', 'scaling = "auto"', "trace.scaling"),
        ("opacity = 0.6", "opacity = 1.6", "grid.light.opacity"),
        ("width = 448", "widht = 448", "widht"),
        ("rate = 100.0", 'rate = "fast"', "rate"),
        ("rate = 100.0", "rate = 20.0", "two samples"),
        ('role = "O2-M1"', 'role = "C4-M1"', "two bands"),
        ("half_span_uv = 40.0", "", "Chin lacks half_span_uv"),
        ("height = 224\nwidth_px", "height = 100\nwidth_px", "trace.height must equal height"),
        ("[trace]", "[trace", "not TOML"),
    ],
)
def test_a_faulty_recipe_is_refused_naming_the_key(old: str, new: str, key: str) -> None:
    text = text_of("clinical-448x224")
    assert old in text
    with pytest.raises(RecipeError) as caught:
        Recipe.parse(text.replace(old, new, 1), "my.toml")
    assert key in str(caught.value)
    assert str(caught.value).startswith("my.toml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("rows = 37", "rows = 38", "rows below the traces"),
        ("column_px = 4", "column_px = 5", "column_px"),
        ("window_s = 1.0", "window_s = 3.0", "tail_s is shorter"),
    ],
)
def test_a_spectrogram_that_does_not_fit_is_refused(old: str, new: str, fault: str) -> None:
    with pytest.raises(RecipeError, match=fault):
        Recipe.parse(text_of("spectral-448").replace(old, new), "my.toml")


def test_an_unknown_built_in_is_answered_with_those_there_are() -> None:
    with pytest.raises(RecipeError, match="clinical-448x224, paper-336, spectral-448"):
        builtin("clinical")


@given(st.text(max_size=200))
def test_any_text_is_a_recipe_or_one_clear_error(text: str) -> None:
    with pytest.raises(RecipeError):
        Recipe.parse(text, "x")


def test_spectral_is_clinical_with_something_below() -> None:
    clinical, spectral = builtin("clinical-448x224"), builtin("spectral-448")
    assert spectral.trace == clinical.trace
    assert spectral.grid == clinical.grid
    bare = [msgspec.structs.replace(band, spectrum=None) for band in spectral.bands]
    assert tuple(bare) == clinical.bands
