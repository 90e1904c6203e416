"""Recipes, a file each: learning algorithms with every value that differs from the defaults of ``TrainingConfig``."""
