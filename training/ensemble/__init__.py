"""Many small models in one batched torch program, each by its own mask, seed and order: the same as ``training.loop`` makes of each alone.

Imports: training.loop, training.loaders and below; torch. ``steps.py`` says who sees what when, ``feed.py`` gathers it, ``stack.py`` holds
models side by side, ``dense.py`` and ``convolutions.py`` learn from a step, ``fit.py`` trains. To add a network, a ``Stack`` of its own and
its name in ``choice.py``.
"""
