"""An independent soak: the installed daemon between real parts, with everything failing at once.

``python -m soak`` (from the folder ``tests``) runs ``hypnocast run`` under a stand-in for the
service manager, with real LSL outlets, a real mosquitto behind a proxy that fails, on a small
file system that fills up and errs. The checker shares no code with the daemon: it reads MQTT with
plain paho, and the journal with SQLite.
"""
