"""The torch loop: one model after another, from a config.

Imports: training.config, training.loaders, training.models and below; torch. ``schedule.py`` and ``batches.py`` are pure functions,
``precision.py`` says what a device does well, ``fit.py`` trains.
"""
