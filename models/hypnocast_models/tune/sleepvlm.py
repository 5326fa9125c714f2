"""The public SleepVLM weights as a pack: how they were asked when they were trained.

They see the page before, the page and the page after in ``clinical-448x224``, are given the rules
in a long system prompt, and answer one JSON object. That prompt comes with their project and is
read from the user's copy of it; here are only the marks by which the three pictures are
distinguished, as the weights know them.
"""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec

from hypnocast.errors import ConfigError
from hypnocast.stagers.packs.manifest import PICTURE_MARK, Context, Generative
from hypnocast_models.export.label import AnswerForm
from hypnocast_models.tune.rationale import REASON, RULES, STAGE

SCHEMA = "answer.schema.json"
STAGES = ("W", "N1", "N2", "N3", "R")
_PICTURE = f"<|vision_start|>{PICTURE_MARK}<|vision_end|>"
# The hyphen in the first mark is U+2011, which is another token than the one on a keyboard.
_PICTURES = (
    f"Preceding epoch N\N{NON-BREAKING HYPHEN}1: {_PICTURE}"
    f"**Target epoch N**: {_PICTURE}"
    f"Subsequent epoch N+1: {_PICTURE}"
)
_TURN, _OVER = "<|im_start|>", "<|im_end|>"
_MOST_TOKENS = 1024
"""The most tokens that their own configuration lets them write."""


PROMPT = "hypnocast-prompt.md"
"""Lies beside weights that were taught reasoned answers: an export asks by it."""


def prompt_of(path: str) -> Path:
    """Give the file of a system prompt; without a path that of this project."""
    return Path(path) if path else Path(str(files("hypnocast_models.tune"))) / "prompts/reasoned.md"


def as_sleepvlm(described: Generative, tokenizer: Any, system_prompt: Path) -> AnswerForm:
    """Ask a Qwen2.5-VL as SleepVLM was asked; the prompt's file decides which of its two ways."""
    if described.rope != "mrope" or not {_TURN, _OVER} <= set(tokenizer.get_vocab()):
        raise ConfigError(
            "these weights are no Qwen2.5-VL with its chat tokens",
            where="export --sleepvlm-prompt",
            remedy="Leave the option out, or give the folder of the SleepVLM weights.",
        )
    rules = _read(system_prompt)
    reasoned = REASON in rules
    prompt = f"{_TURN}system\n{rules}{_OVER}\n{_TURN}user\n{_PICTURES}{_OVER}\n{_TURN}assistant\n"
    table = msgspec.structs.replace(
        described,
        prompt=prompt,
        answers=STAGES,
        scoring="generate",
        schema=SCHEMA,
        answer_key=STAGE,
        rationale_key=REASON if reasoned else None,
        rules_key=RULES,
        eos_token=_OVER,
        bos_token=None,
        max_tokens=_MOST_TOKENS,
    )
    return AnswerForm(table, Context(before=1, after=1), {SCHEMA: answer_schema(reasoned=reasoned)})


def answer_schema(*, reasoned: bool) -> str:
    """Give the schema of the answer: its keys in the order in which they are written."""
    keys: dict[str, Any] = {REASON: {"type": "string"}} if reasoned else {}
    keys[RULES] = {"type": "array", "items": {"type": "string"}}
    keys[STAGE] = {"enum": list(STAGES)}
    schema = {
        "type": "object",
        "properties": keys,
        "required": list(keys),
        "additionalProperties": False,
    }
    return json.dumps(schema, indent=1) + "\n"


def _read(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"the system prompt cannot be read ({error})",
            where=str(path),
            remedy="Give a prompt file of the SleepVLM project, sleepvlm/prompts/phase2_sft_*.md.",
        ) from error
    if STAGE not in text or PICTURE_MARK in text:
        raise ConfigError(
            f"is no system prompt of SleepVLM: it does not ask for {STAGE!r}",
            where=str(path),
            remedy="Give a prompt file of the SleepVLM project, sleepvlm/prompts/phase2_sft_*.md.",
        )
    return text
