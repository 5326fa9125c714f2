"""The bridge: gear that does not speak LSL itself, published as LSL streams.

One process serves one piece of gear and knows nothing of the daemon: what it sends is found by
``hypnocast run``, LabRecorder or anybody else, as if the gear spoke LSL. Each kind is a
:class:`~.gear.Gear`; :func:`~.gear.run_bridge` sends what it gives and tries again where it fails.
"""
