"""What is measured on a page, and what a stage rests on."""
