"""What people get in the morning: the night's report, exports, answers, corrections.

Everything here reads the journal and the tapes of a state folder. Nothing of it is needed while
a night runs, but for the picture store and the explainer, which answer ``page`` and ``explain``.
"""
