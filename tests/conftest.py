"""What every test run needs before its first test, and how several processes share the tests."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
import structlog

# Before anything loads numpy or torch: arrays as small as those of tests gain nothing by threads,
# and processes side by side would only share the cores.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import hypothesis  # noqa: E402 - once the variables are set

from support import lsl_lab  # noqa: E402 - the same
from support.side_by_side import in_real_time, place, scope  # noqa: E402 - the same

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.scheduler import LoadScopeScheduling

lsl_lab.isolate()
# How long an example lasts shows how busy the machine is; ``timeout`` ends what hangs.
hypothesis.settings.register_profile("tests", hypothesis.settings(), deadline=None)
hypothesis.settings.load_profile("tests")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """Deal out whole files (``pytest -n``), so that what a file's tests share is made once."""
    from xdist.scheduler import LoadScopeScheduling

    class ByScope(LoadScopeScheduling):  # type: ignore[misc]  # it comes without types
        def _split_scope(self, nodeid: str) -> str:
            return scope(nodeid)

    config.option.loadscopereorder = False
    return ByScope(config, log)


@pytest.fixture(scope="module", autouse=True)
def what_a_file_leaves_open_is_found_in_it() -> Iterator[None]:
    """Let the garbage collector find unclosed sockets and files in the file that left them.

    Otherwise it finds them while a later test runs, which is then blamed. What lives on beyond a
    file is looked at once only: it is modules and caches, and going through them takes a second.
    """
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def what_a_file_does_to_the_logs_ends_with_it() -> Iterator[None]:
    """Let no file find logs as another one left them: a command that ran in it sets them up."""
    yield
    structlog.reset_defaults()


def pytest_collection_finish() -> None:
    """Look through all that was loaded for the last time."""
    gc.collect()
    gc.freeze()


def pytest_runtest_logstart() -> None:
    """Keep torch from tracing each of its exports for a log that nobody reads.

    It does so wherever its log of traces has a handler, and pytest gives one to each log that does
    not propagate: a sixth of an export went there.
    """
    logging.getLogger("torch.__trace").propagate = True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what lasts longest, so that no process ends long after the others."""
    items.sort(key=lambda item: place(item.nodeid))
    for item in items:
        if in_real_time(item.nodeid):
            item.add_marker("real_time")
