"""Fine-tuning of vision-language models of any size on scored pages."""
