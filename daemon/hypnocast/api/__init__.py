"""What ``import hypnocast`` gives: pages, stages, explanations of recordings, without a daemon."""
