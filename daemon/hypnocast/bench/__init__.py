"""``hypnocast bench``: what Hypnocast costs, measured on this machine with its shipped defaults.

Groups: ``start``, ``picture``, ``verdict``, ``path``, ``night``, ``ward``, ``generate``. Each
gives figures with every raw sample; nothing is asserted, a target that is missed is shown as
missed.
"""
