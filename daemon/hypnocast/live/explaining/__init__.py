"""What a stage rests on, while the night runs, and its pages gone by."""
