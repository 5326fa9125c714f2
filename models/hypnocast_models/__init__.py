"""From scored recordings to a verified pack: data, fine-tuning, export, evaluation."""
