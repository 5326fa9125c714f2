"""Explanations: blanked means as if never recorded, and what carries the stage is named."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypnocast.core.evidence.occlusion import (
    MOST_NAMED,
    PATCHES,
    StageBasis,
    blank,
    channel_looks,
    channel_rests,
    drawn_roles,
    patch_falls,
    patch_looks,
)
from hypnocast.core.pictures.conditioning import condition
from hypnocast.core.pictures.recipe import builtin
from hypnocast.core.pictures.render import draw_page, render
from hypnocast.core.types import (
    STAGES,
    Derivation,
    FloatArray,
    Look,
    Page,
    Picture,
    Role,
    Signal,
    Stage,
)
from hypnocast.simulate import SimulatedNight

ROLES = (Role.F4, Role.C4, Role.O2, Role.E1, Role.E2, Role.CHIN)
RECIPE = builtin("spectral-448")
INK = 40


def page(stage: Stage, roles: Sequence[Role] = ROLES, seed: int = 5) -> Page:
    night = SimulatedNight(seed, stages=(stage,) * 4)
    samples = night.samples(60.0 - RECIPE.context_s, 90.0 + RECIPE.tail_s).astype(np.float64)
    signals = {
        role: Signal(
            Derivation(role, role.value, "s", place, None, 1.0, rate=256.0),
            256.0,
            np.round(samples[:, place] * 64) / 64,
        )
        for place, role in enumerate(ROLES)
        if role in roles
    }
    return Page(2, signals, RECIPE.context_s, RECIPE.tail_s)


def drawn(stage: Stage, roles: Sequence[Role] = ROLES) -> Picture:
    return draw_page(page(stage, roles), RECIPE, 50, {}, {})


def look_of(picture: Picture) -> Look:
    return Look((None, picture), 1)


def judged(looks: Sequence[Look], sure: Callable[[Picture], float]) -> list[FloatArray]:
    """Let a model be as sure of R as it is set to be; the rest goes to W."""
    rows = []
    for look in looks:
        p = sure(look.page)
        rows.append(np.array([1.0 - p, 0.0, 0.0, 0.0, p]))
    return rows


def rested(picture: Picture, sure: Callable[[Picture], float]) -> StageBasis:
    """Return what R rests on for such a model."""
    look = look_of(picture)
    return channel_rests(Stage.R, look, RECIPE, judged(channel_looks(look, RECIPE), sure))


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("role", ROLES)
def test_a_blanked_channel_is_a_channel_that_was_never_recorded(stage: Stage, role: Role) -> None:
    whole = drawn(stage)
    others = tuple(other for other in ROLES if other is not role)
    never = render(condition(page(stage, others), RECIPE, 50), RECIPE).astype(int)
    blanked = blank(whole.rgb, RECIPE, (role,)).astype(int)
    rows = RECIPE.trace.height
    assert np.array_equal(blanked[rows:], never[rows:])
    removed = (np.abs(never - whole.rgb).max(axis=2) > INK).sum()
    wrong = (np.abs(never - blanked).max(axis=2) > INK).sum()
    # Where traces of two colours cross, a pixel carries both and goes to one of them.
    assert wrong < 0.02 * removed


def test_a_page_without_any_channel_is_the_empty_page() -> None:
    whole = drawn(Stage.R)
    empty = blank(whole.rgb, RECIPE, ROLES)
    assert np.array_equal(empty, blank(empty, RECIPE, ROLES))
    picture = Picture(2, empty, "", RECIPE.digest, {}, {})
    assert drawn_roles(picture, RECIPE) == ()
    assert drawn_roles(whole, RECIPE) == ROLES
    assert drawn_roles(drawn(Stage.N2, (Role.C4, Role.CHIN)), RECIPE) == (Role.C4, Role.CHIN)


def test_two_channels_that_show_the_same_are_both_named() -> None:
    def either_eye(picture: Picture) -> float:
        seen = drawn_roles(picture, RECIPE)
        return 0.9 if Role.E1 in seen or Role.E2 in seen else 0.1

    rests = rested(drawn(Stage.R), either_eye)
    assert rests.sentence == "R rests on E1-M2 and E2-M2"
    assert rests.channels[Role.E1] == pytest.approx(0.4)
    assert rests.channels[Role.CHIN] == 0.0
    assert rests.alone == pytest.approx({"EEG": 0.1, "eyes": 0.9, "chin": 0.1})


def test_where_one_kind_stands_in_for_another_no_channel_is_named_but_the_kinds_are() -> None:
    def eyes_or_eeg(picture: Picture) -> float:
        return 0.8 if set(drawn_roles(picture, RECIPE)) - {Role.CHIN} else 0.1

    rests = rested(drawn(Stage.R), eyes_or_eeg)
    assert rests.named == ()
    assert rests.sentence == "R rests on no single channel; the EEG or the eyes alone would do"


def test_what_is_named_may_not_be_all_there_is_to_say() -> None:
    def frontal_or_eyes(picture: Picture) -> float:
        seen = drawn_roles(picture, RECIPE)
        return 0.4 + 0.3 * (Role.F4 in seen) + 0.2 * (Role.E1 in seen) * (Role.F4 not in seen)

    rests = rested(drawn(Stage.R), frontal_or_eyes)
    assert rests.sentence == "R rests on F4-M1; the eyes alone would do"


@given(
    falls=st.dictionaries(st.sampled_from(ROLES), st.floats(-1.0, 1.0)),
    whole=st.floats(0.0, 1.0),
)
def test_only_a_few_that_matter_are_named_the_dearest_first(
    falls: dict[Role, float], whole: float
) -> None:
    rests = StageBasis(Stage.N2, whole, falls, {}, 0.0)
    costs = [falls[role] for role in rests.named]
    assert len(costs) <= MOST_NAMED
    assert costs == sorted(costs, reverse=True)
    assert all(cost >= 0.1 and cost >= max(falls.values()) / 2 for cost in costs)
    left = [fall for role, fall in falls.items() if role not in rests.named]
    assert not costs or max(left, default=-1.0) <= min(costs)


def test_what_is_blanked_here_is_blanked_on_the_pages_around() -> None:
    before, now = drawn(Stage.N2), drawn(Stage.R)
    look = Look((before, now), 1)
    for shown in channel_looks(look, RECIPE)[1:]:
        first = shown.pictures[0]
        assert first is not None
        assert drawn_roles(first, RECIPE) == drawn_roles(shown.page, RECIPE)


def test_a_stage_that_rests_on_nothing_is_reported_as_such() -> None:
    rests = rested(drawn(Stage.R), lambda _: 0.9)
    assert rests.sentence == "R rests on no single channel"


def test_the_heat_lies_where_the_model_looked() -> None:
    whole = drawn(Stage.R)
    side = RECIPE.width // PATCHES
    row, column = 3, 6

    def one_corner(picture: Picture) -> float:
        seen = picture.rgb[row * side : (row + 1) * side, column * side : (column + 1) * side]
        same = np.array_equal(
            seen, whole.rgb[row * side : (row + 1) * side, column * side : (column + 1) * side]
        )
        return 0.8 if same else 0.3

    look = look_of(whole)
    answers = judged(patch_looks(look, RECIPE), one_corner)
    falls = np.array(patch_falls(Stage.R, judged([look], one_corner)[0], answers))
    assert falls.shape == (PATCHES, PATCHES)
    assert falls[row, column] == pytest.approx(0.5)
    assert np.count_nonzero(falls) == 1
