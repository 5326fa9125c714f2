"""What the command line offers. These modules hold the options and the printing, no more.

Each command imports its work when it is called, so that ``--help`` and completion are quick.
"""
