"""The daemon put together: configuration, sessions, the pipeline, the commands."""
