"""The JSON files that state the arrays and documents of the store format, and nothing else."""
