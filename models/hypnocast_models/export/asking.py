"""How a model that writes is asked: plainly, stage first with reasons behind, or as SleepVLM."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from hypnocast.errors import ConfigError
from hypnocast.stagers.packs.manifest import Context, Generative
from hypnocast_models.export.label import AnswerForm, Ask
from hypnocast_models.export.model_files import QUESTION

SCHEMA = "answer.schema.json"
STAGES = ("W", "N1", "N2", "N3", "R")
_KEYS = ("sleep_stage", "reasoning_text", "applicable_rules")
_ANSWER = " Answer with one JSON object: sleep_stage, reasoning_text, applicable_rules."


WORDS = (
    QUESTION + _ANSWER,
    *(f'{{"{_KEYS[0]}": "{stage}", "{_KEYS[1]}": "", "{_KEYS[2]}": [""]}}' for stage in STAGES),
    "Preceding epoch N-1: **Target epoch N**: Subsequent epoch N+1: ",
)
"""What is asked and answered, to make a small tokenizer by."""


def ask_stage_first(table: Generative) -> AnswerForm:
    """Ask for the stage, and for the reasons behind it: the stage never waits for them."""
    stage, reason, rules = _KEYS
    schema = {
        "type": "object",
        "properties": {
            stage: {"enum": [*STAGES]},
            reason: {"type": "string", "maxLength": 400},
            rules: {"type": "array", "items": {"type": "string", "maxLength": 40}, "maxItems": 8},
        },
        "required": [*_KEYS],
        "additionalProperties": False,
    }
    if table.eos_token is None:
        raise ConfigError(
            "the tokenizer has no token that ends an answer",
            where="tokenizer_config.json: eos_token",
            remedy="Ask plainly, or add eos_token.",
        )
    changed = msgspec.structs.replace(
        table,
        prompt=table.prompt.replace(QUESTION, QUESTION + _ANSWER),
        answers=STAGES,
        scoring="stage-first",
        schema=SCHEMA,
        answer_key=stage,
        rationale_key=reason,
        rules_key=rules,
        max_tokens=160,
    )
    return AnswerForm(changed, Context(), {SCHEMA: json.dumps(schema, indent=1) + "\n"})


def ask_as_sleepvlm(source: Path, system_prompt: Path) -> Ask:
    """Ask as SleepVLM was trained to answer: three pages, its rules, its reasons first."""
    from tokenizers import Tokenizer

    from hypnocast_models.tune.sleepvlm import as_sleepvlm

    words: Any = Tokenizer.from_file(str(source / "tokenizer.json"))
    return partial(as_sleepvlm, tokenizer=words, system_prompt=system_prompt)
