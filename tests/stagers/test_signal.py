"""Packs that read signals: votes, the state that is carried, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from hypnocast.core.types import ChannelQuality, Flag, FloatArray, Look, Opinion, Role
from hypnocast.errors import InferenceError, PackError
from hypnocast.stagers.one_night import OneNight
from hypnocast.stagers.onnx.local import LocalStager
from hypnocast.stagers.packs.manifest import SignalInput, Vote
from hypnocast.stagers.packs.pack import Pack, load_pack
from support.packs import SIGNAL_SAMPLES, make_tiny_pack, tiny_picture

ALL = (Role.C4, Role.E1, Role.E2)
ONE = (Role.C4,)


def _pack(folder: Path, **changes: Any) -> Pack:
    return load_pack(make_tiny_pack(folder / "tiny", family="signal", **changes))


def _look(epoch: int, roles: Sequence[Role] = ALL, gain: float = 1.0) -> Look:
    rng = np.random.default_rng(epoch)
    samples = {
        role: gain * rng.normal(0, 20, SIGNAL_SAMPLES) * (1 + place + epoch % 3)
        for place, role in enumerate(ALL)
    }
    there = MappingProxyType({role: samples[role] for role in roles})
    return Look((replace(tiny_picture(epoch, epoch), samples=there),))


def _rows(opinions: Sequence[Opinion]) -> FloatArray:
    return np.stack([opinion.log_probabilities for opinion in opinions])


def _expected(pack: Pack, looks: Sequence[Look], votes: Sequence[tuple[str, ...]]) -> FloatArray:
    """Follow every vote through the night by hand; the surest one decides."""
    run = {
        name: ort.InferenceSession(str(pack.folder / f"{name}.onnx"))
        for name in ("eeg", "eeg_eog", "context")
    }
    states = {vote: np.zeros((1, 2, 16), np.float32) for vote in votes}
    values = []
    for look in looks:
        samples: Mapping[Role, FloatArray] = look.page.samples or {}
        rows = []
        for vote in votes:
            parts = [samples[Role(role)] for role in vote]
            scaled = [((x - x.mean()) / x.std()).astype(np.float32)[None, None] for x in parts]
            names = ("eeg", "eog")[: len(vote)]
            features = run["_".join(names)].run(None, dict(zip(names, scaled, strict=True)))[0]
            fed = {"features": features, "state": states[vote]}
            row, states[vote] = run["context"].run(None, fed)
            rows.append(row[0])
        values.append(max(rows, key=max))
    return np.stack(values).astype(np.float64)


EYES = (("C4-M1",), ("C4-M1", "E1-M2"), ("C4-M1", "E2-M2"))


@pytest.mark.parametrize(("roles", "votes"), [(ALL, EYES), (ONE, EYES[:1])], ids=["all", "eeg"])
def test_votes_follow_their_own_states_and_the_surest_decides(
    tmp_path: Path, roles: tuple[Role, ...], votes: Sequence[tuple[str, ...]]
) -> None:
    pack = _pack(tmp_path)
    looks = [_look(epoch, roles) for epoch in range(12)]
    stager = LocalStager(pack, "cpu", 1)
    found = _rows(OneNight(stager, carries=True).judge(looks))
    assert np.abs(found - _expected(pack, looks, votes)).max() < 1e-5
    alone = _rows(stager.judge(looks))
    assert np.abs(found[3:] - alone[3:]).max() > 1e-3  # what was carried over is used


def test_a_night_does_not_depend_on_who_is_judged_along_with_it(tmp_path: Path) -> None:
    stager = LocalStager(_pack(tmp_path), "cpu", 1)
    night, other = ([_look(e, roles) for e in range(6)] for roles in (ALL, ONE))
    alone = _rows(OneNight(stager, carries=True).judge(night))
    carried: list[bytes | None] = [None, None]
    together = []
    for pair in zip(night, other, strict=True):
        looks = [replace(look, carried=state) for look, state in zip(pair, carried, strict=True)]
        opinions = stager.judge(looks)
        carried = [opinion.carried for opinion in opinions]
        together.append(opinions[0])
    assert np.abs(_rows(together) - alone).max() < 1e-6


def test_a_night_goes_on_in_another_process_from_the_bytes_alone(tmp_path: Path) -> None:
    pack = _pack(tmp_path)
    looks = [_look(epoch) for epoch in range(8)]
    whole = _rows(OneNight(LocalStager(pack, "cpu", 1), carries=True).judge(looks))
    first = OneNight(LocalStager(pack, "cpu", 1), carries=True).judge(looks[:5])
    stager, carried, rest = LocalStager(pack, "cpu", 1), first[-1].carried, []
    for look in looks[5:]:
        (opinion,) = stager.judge([replace(look, carried=carried)])
        carried = opinion.carried
        rest.append(opinion)
    assert (_rows(rest) == whole[5:]).all()


def test_the_gain_does_not_matter_where_each_page_is_scaled_by_itself(tmp_path: Path) -> None:
    stager = LocalStager(_pack(tmp_path), "cpu", 1)
    found = _rows(stager.judge([_look(epoch) for epoch in range(4)]))
    loud = _rows(stager.judge([_look(epoch, gain=3.0) for epoch in range(4)]))
    assert np.abs(found - loud).max() < 1e-4


def test_running_moments_are_those_of_the_night_so_far(tmp_path: Path) -> None:
    pack = _pack(tmp_path, scaling="running", votes=(Vote(graph="eeg.onnx", inputs=("eeg",)),))
    looks = [_look(epoch, ONE) for epoch in range(4)]
    rows = _rows(OneNight(LocalStager(pack, "cpu", 1), carries=True).judge(looks))
    pages = np.stack([(look.page.samples or {})[Role.C4] for look in looks])
    so_far = [pages[: k + 1].ravel() for k in range(4)]
    scaled = [(page - x.mean()) / x.std() for page, x in zip(pages, so_far, strict=True)]
    votes = (Vote(graph="eeg.onnx", inputs=("eeg",)),)
    by_page = _pack(tmp_path / "still", scaling="microvolts", votes=votes)
    ready = [
        Look((replace(look.page, samples=MappingProxyType({Role.C4: x})),))
        for look, x in zip(looks, scaled, strict=True)
    ]
    expected = _rows(OneNight(LocalStager(by_page, "cpu", 1), carries=True).judge(ready))
    assert np.abs(rows - expected).max() < 1e-5


def test_an_electrode_that_fell_off_votes_no_more_and_another_takes_its_place(
    tmp_path: Path,
) -> None:
    stager = LocalStager(_pack(tmp_path), "cpu", 1)
    look = _look(1)
    lost = {Role.E1: ChannelQuality(1.0, frozenset({Flag.DETACHED}))}
    loose = Look((replace(look.page, quality=lost),))
    samples = dict(look.page.samples or {})
    without: dict[Role, FloatArray] = {role: samples[role] for role in (Role.C4, Role.E2)}
    absent = Look((replace(look.page, samples=MappingProxyType(without)),))
    assert (_rows(stager.judge([loose])) == _rows(stager.judge([absent]))).all()
    moved: Mapping[Role, FloatArray] = {Role.O2: samples[Role.C4], Role.E2: samples[Role.E2]}
    elsewhere = Look((replace(look.page, samples=MappingProxyType(moved)),))
    assert (_rows(stager.judge([elsewhere])) == _rows(stager.judge([absent]))).all()


def test_what_cannot_be_judged_is_reported(tmp_path: Path) -> None:
    stager = LocalStager(_pack(tmp_path), "cpu", 1)
    with pytest.raises(InferenceError, match="picture alone"):
        stager.judge([Look((tiny_picture(0, 0),))])
    with pytest.raises(InferenceError, match="no vote has its signals"):
        stager.judge([_look(0, (Role.E1,))])
    for foreign in (b"\xff", b"\x82\xa6scales\x90\xa6states\x90"):
        with pytest.raises(InferenceError, match="of another model"):
            stager.judge([replace(_look(0), carried=foreign)])


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"recurrent": None}, "state_shape"),
        ({"votes": (Vote(graph="eeg.onnx", inputs=("ear",)),)}, "no input 'ear'"),
        ({"votes": (Vote(graph="none.onnx", inputs=("eeg",)),)}, "not listed"),
        ({"inputs": (SignalInput(name="eeg", roles=(Role.C4,)),) * 2}, "same name"),
    ],
)
def test_a_pack_that_contradicts_itself_is_refused(
    tmp_path: Path, changes: dict[str, Any], why: str
) -> None:
    with pytest.raises((PackError, ValueError), match=why):
        _pack(tmp_path, **changes)
