"""What every test run needs before its first test."""

from __future__ import annotations

import lsl_lab

lsl_lab.isolate()
