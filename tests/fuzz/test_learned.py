"""What comes over the network, fuzzed: seeds, what was learnt, and a few hundred new inputs each.

``python -m fuzz.learn TARGET SECONDS`` is the long form, which learns.
"""

from __future__ import annotations

import pytest

from fuzz.learned import TARGETS, learnt
from fuzz.run import feed
from hypnocast.errors import HypnocastError

INPUTS = 200


@pytest.mark.parametrize("name", TARGETS)
def test_what_was_learnt_is_answered_or_refused_in_words(name: str) -> None:
    target = TARGETS[name]()
    for known in [*target.seeds, *(path.read_bytes() for path in learnt(name))]:
        try:
            target.read(known)
        except HypnocastError:
            continue
    fed = feed(target, INPUTS)
    assert not fed.failures, fed.failures[0]
    assert fed.refused + fed.read == INPUTS
