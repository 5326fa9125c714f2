"""``hypnocast bench``: what Hypnocast costs, measured on this machine with its shipped defaults.

Groups: ``picture``, ``verdict``, ``path``, ``night``, ``ward`` and ``generate``. Each gives
:class:`~.figures.Figure` s with every raw sample; nothing is asserted, a target that is missed is
shown as missed.
"""
