"""What two looks at a page have in common is read once, and changes no answer."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import msgspec
import numpy as np
import pytest

from hypnocast.core.types import FloatArray, Look, Picture, Stage
from hypnocast.errors import TooLateError
from hypnocast.stagers.generative.decoder import Decoder
from hypnocast.stagers.generative.model import SECOND_LOOK_S, GenerativeModel
from hypnocast.stagers.generative.shared_buffer import SharedBufferDecoder
from hypnocast.stagers.onnx.engine import Engine
from hypnocast.stagers.onnx.local import LocalStager
from hypnocast.stagers.packs.manifest import PICTURE_MARK, Context, Generative
from hypnocast.stagers.packs.pack import Pack
from support.needs import need_module

for name in ("torch", "transformers", "onnx", "onnxruntime", "ml_dtypes"):
    need_module(name)

from hypnocast_models.export.asking import ask_stage_first  # noqa: E402
from hypnocast_models.export.label import AnswerForm  # noqa: E402
from support.small_models import RECIPE, small_pack  # noqa: E402


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    """A small random model that looks at three pages."""

    def ask(table: Generative) -> AnswerForm:
        shown = f"<|vision_start|>{PICTURE_MARK}<|vision_end|>"
        prompt = table.prompt.replace(shown, f"before {shown} page {shown} after {shown}")
        changed = msgspec.structs.replace(table, prompt=prompt)
        return AnswerForm(changed, Context(before=1, after=1))

    return small_pack(tmp_path_factory.mktemp("looks"), "qwen2_5_vl", ask=ask)


def _pictures(pack: Pack, bed: int) -> Iterator[Picture]:
    rng = np.random.default_rng(bed)
    for epoch in range(100):
        rgb = rng.integers(0, 256, (pack.recipe.height, pack.recipe.width, 3), dtype=np.uint8)
        yield Picture(epoch, rgb, f"{bed} {epoch}", RECIPE.digest, quality={}, channels={})


def _model(pack: Pack) -> GenerativeModel:
    assert isinstance(pack.manifest.model, Generative)
    return GenerativeModel(pack, pack.manifest.model, Engine("cpu", 1))


def _night(pack: Pack, beds: int, pages: int) -> Iterator[list[Look]]:
    """Give looks as they come: second ones at the page before, then first ones, of all beds."""
    shown = [[*zip(range(pages), _pictures(pack, bed), strict=False)] for bed in range(beds)]
    for page in range(pages):
        if page:
            yield [Look((_at(s, page - 2), _at(s, page - 1), _at(s, page)), 1) for s in shown]
        yield [Look((_at(s, page - 1), _at(s, page), None), 1) for s in shown]


def _at(shown: list[tuple[int, Picture]], page: int) -> Picture | None:
    return shown[page][1] if page >= 0 else None


@pytest.mark.parametrize(("beds", "together"), [(1, True), (3, True), (3, False)])
def test_looks_that_share_a_beginning_are_judged_as_if_each_were_read_whole(
    pack: Pack, *, beds: int, together: bool
) -> None:
    model, whole = _model(pack), _model(pack)
    for looks in _night(pack, beds, pages=4):
        groups = [looks] if together else [[look] for look in reversed(looks)]
        for group in groups:
            wanted = [_read_afresh(whole, look) for look in group]
            got = model.read(group)
            for one, other in zip(got, wanted, strict=True):
                np.testing.assert_allclose(one.log_probabilities, other, atol=1e-4)
    assert isinstance(model.decoder, SharedBufferDecoder)
    assert len(model.decoder._contents) == beds


def _read_afresh(model: GenerativeModel, look: Look) -> FloatArray:
    assert isinstance(model.decoder, SharedBufferDecoder)
    for content in model.decoder._contents:
        content.pictures = ()
    return model.read([look])[0].log_probabilities


def test_the_second_look_at_a_page_reads_the_page_after_it_only(
    pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokens = _model(pack), [0]
    read = Decoder._feeds

    def counted(decoder: Decoder, embeds: Any, *given: Any) -> Any:
        tokens[0] += embeds.shape[1]
        return read(decoder, embeds, *given)

    monkeypatch.setattr(Decoder, "_feeds", counted)
    one, two, three = islice(_pictures(pack, 0), 3)
    model.read([Look((one, two, None), 1)])
    first, tokens[0] = tokens[0], 0
    model.read([Look((one, two, three), 1)])
    assert tokens[0] <= first - 2 * len(model._slots) // 3


@pytest.mark.parametrize("beds", [1, 2])
def test_the_pages_before_are_read_ahead_and_change_no_answer(
    pack: Pack, monkeypatch: pytest.MonkeyPatch, beds: int
) -> None:
    model, whole, tokens = _model(pack), _model(pack), [0]
    feeds = Decoder._feeds

    def counted(decoder: Decoder, embeds: Any, *given: Any) -> Any:
        assert given[0].shape[-1] == embeds.shape[1], "each token has its position"
        tokens[0] += embeds.shape[1] * (decoder is model.decoder)
        return feeds(decoder, embeds, *given)

    monkeypatch.setattr(Decoder, "_feeds", counted)
    read: dict[bool, list[int]] = {True: [], False: []}
    for looks in _night(pack, beds, pages=4):
        first = looks[0].pictures[-1] is None
        for look in looks:
            tokens[0] = 0
            (got,) = model.read([look])
            read[first].append(tokens[0])
            np.testing.assert_allclose(got.log_probabilities, _read_afresh(whole, look), atol=1e-4)
        if first:
            for look in looks:
                model.read_ahead(look)
    prompt, a_picture = read[True][0], len(model._slots) // 3
    # The night's first page apart, a first look begins to read at its second picture, the page.
    assert {prompt - tokens for tokens in read[True][beds:]} == {model._starts[1]}
    assert max(read[False][beds:]) <= prompt - 2 * a_picture  # second looks go on as before
    assert isinstance(model.decoder, SharedBufferDecoder)
    assert len(model.decoder._contents) <= 2 * beds


def test_a_row_waits_for_the_second_look_and_not_for_ever(pack: Pack) -> None:
    model, now = _model(pack), [0.0]
    assert isinstance(model.decoder, SharedBufferDecoder)
    model.decoder._clock = lambda: now[0]
    for bed in range(6):
        one, two = islice(_pictures(pack, bed), 2)
        model.read([Look((one, two, None), 1)])  # no second look ever comes
        now[0] += SECOND_LOOK_S / 2
    assert len(model.decoder._contents) == 2


@pytest.fixture(scope="module")
def reasoning(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    """A small random model that names the stage first and then its reasons."""
    return small_pack(tmp_path_factory.mktemp("reasons"), "qwen2_5_vl", ask=ask_stage_first)


def test_reasons_are_written_behind_the_stage_without_reading_the_prompt_again(
    reasoning: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    stager, read = LocalStager(reasoning, "cpu", 1), [0]
    feeds = Decoder._feeds

    def counted(decoder: Decoder, embeds: Any, *given: Any) -> Any:
        read[0] = max(read[0], embeds.shape[1])
        return feeds(decoder, embeds, *given)

    monkeypatch.setattr(Decoder, "_feeds", counted)
    look = Look((next(_pictures(reasoning, 1)),))
    opinion = stager.judge([look])[0]
    whole, read[0] = read[0], 0
    for stage in (Stage.N2, Stage.R):
        reasons = stager.reasons(look, stage, lambda: True)
        assert isinstance(reasons.rationale, str)
        np.testing.assert_allclose(reasons.log_probabilities, opinion.log_probabilities, atol=1e-4)
    assert read[0] < whole / 4


def test_reasons_end_with_the_word_at_which_a_page_comes(
    reasoning: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    stager, runs, at_page = LocalStager(reasoning, "cpu", 1), [0], [0]
    feeds = Decoder._feeds

    def counted(*given: Any) -> Any:
        runs[0] += 1
        return feeds(*given)

    monkeypatch.setattr(Decoder, "_feeds", counted)
    asked = iter([True] * 3)

    def go_on() -> bool:
        if next(asked, False):
            return True
        at_page[0] = at_page[0] or runs[0]
        return False

    with pytest.raises(TooLateError, match="pages wait"):
        stager.reasons(Look((next(_pictures(reasoning, 1)),)), Stage.N2, go_on)
    assert runs[0] == at_page[0]
