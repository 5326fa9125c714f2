"""The prompt as tokens: which are text, which are places for picture features, and where.

Text is tokenised in one piece with the places of the pictures in it, as the training code did
it: a tokenizer may join what is side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hypnocast.errors import PackError
from hypnocast.stagers.onnx.pixels import patch_grid
from hypnocast.stagers.packs.manifest import PICTURE_MARK, TILE_MARK, Generative

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Ids = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """The whole prompt of a pack, pictures in their places."""

    ids: Ids
    """(tokens,); at the places of features is the image token."""
    slots: Ids
    """(pictures × tokens per picture,): where the features go, in the order of the look."""
    positions: Ids
    """(tokens,), or (3, tokens) for time, row and column (mrope)."""

    @property
    def lead(self) -> int:
        """Tokens before the first picture: the same for every page."""
        return int(self.slots[0])

    @property
    def next_position(self) -> int:
        """Position of the token after the prompt, in every dimension."""
        return int(self.positions.max()) + 1


def load_tokenizer(path: Path) -> Tokenizer:
    """Read ``tokenizer.json``; padding and truncation set in it are undone."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:
        raise PackError(
            f"no tokenizer that can be read: {str(error)[:200]}",
            where=str(path),
            remedy="Export the pack again with a current tokenizers library.",
        ) from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def token_id(tokenizer: Tokenizer, token: str, key: str) -> int:
    """Return the id of one token that the manifest names."""
    found = tokenizer.token_to_id(token)
    if found is None:
        raise _wrong(key, f"the tokenizer has no token {token!r}")
    return int(found)


def build_prompt(tokenizer: Tokenizer, model: Generative) -> Prompt:
    """Tokenise a pack's prompt and find the places of its pictures."""
    image = token_id(tokenizer, model.image_token, "image_token")
    ids = np.asarray(_encode(tokenizer, model, prompt_text(model)), dtype=np.int64)
    slots = np.flatnonzero(ids == image)
    expected = model.prompt.count(PICTURE_MARK) * model.tokens_per_picture
    if len(slots) != expected:
        what = f"it has {len(slots)} places for features after tokenising, not {expected}"
        raise _wrong("prompt", what)
    if slots[-1] == len(ids) - 1:
        raise _wrong("prompt", "no text stands after the last picture")
    if model.rope == "mrope":
        rows, columns = patch_grid(model.preprocess)
        if rows * columns != model.tokens_per_picture:
            what = f"{model.tokens_per_picture} is not {rows} × {columns}, as the patches say"
            raise _wrong("tokens_per_picture", what)
        positions = _mrope_positions(len(ids), slots[:: rows * columns], rows, columns)
    else:
        positions = np.arange(len(ids), dtype=np.int64)
    return Prompt(ids, slots, positions)


def encode_answers(tokenizer: Tokenizer, model: Generative) -> list[tuple[int, ...]]:
    """Tokenise the answers as they come behind the prompt.

    Where one begins with another, ``eos_token`` ends each, so that they can be distinguished.
    """
    answers = encode_behind(tokenizer, model, model.answers)
    if not any(_begins(one, other) for one in answers for other in answers):
        return answers
    if model.eos_token is None:
        raise _wrong("answers", "one begins with another, and there is no eos_token to end it")
    end = token_id(tokenizer, model.eos_token, "eos_token")
    return [(*answer, end) for answer in answers]


def encode_behind(
    tokenizer: Tokenizer, model: Generative, texts: Sequence[str]
) -> list[tuple[int, ...]]:
    """Tokenise texts as they come behind the prompt."""
    text = prompt_text(model)
    before = _encode(tokenizer, model, text)
    found = []
    for answer in texts:
        ids = _encode(tokenizer, model, text + answer)
        if ids[: len(before)] != before or len(ids) == len(before):
            raise _wrong(
                "answers", f"{answer!r} melts into the end of the prompt when they are tokenised"
            )
        found.append(tuple(ids[len(before) :]))
    return found


def _begins(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return one is not other and other[: len(one)] == one


def prompt_text(model: Generative) -> str:
    """Return the prompt with an image token at the place of every feature."""
    each, rest = divmod(model.tokens_per_picture, model.preprocess.tiles)
    picture = model.picture_prompt.replace(TILE_MARK, model.image_token * (each + rest), 1)
    picture = picture.replace(TILE_MARK, model.image_token * each)
    return model.prompt.replace(PICTURE_MARK, picture)


def _encode(tokenizer: Tokenizer, model: Generative, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    if model.bos_token is not None:
        ids = [token_id(tokenizer, model.bos_token, "bos_token"), *ids]
    return ids


def _mrope_positions(count: int, starts: Sequence[int] | Ids, rows: int, columns: int) -> Ids:
    """Count text on and spread each picture in rows and columns, as Qwen2.5-VL does."""
    positions = np.empty((3, count), dtype=np.int64)
    at, number = 0, 0
    for start in starts:
        text = int(start) - at
        positions[:, at : at + text] = number + np.arange(text)
        number += text
        row, column = np.divmod(np.arange(rows * columns), columns)
        places = slice(int(start), int(start) + rows * columns)
        positions[:, places] = number + np.stack([np.zeros_like(row), row, column])
        number += max(rows, columns)
        at = places.stop
    positions[:, at:] = number + np.arange(count - at)
    return positions


def _wrong(key: str, what: str) -> PackError:
    return PackError(what, where=f"pack.toml: model.{key}", remedy="See docs/packs.md.")
