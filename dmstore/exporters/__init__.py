"""What is stored, in the formats of other tools, bit by bit.

Imports: study and below.
To add a format, a module with its writer and its line in ``export.FORMATS``, read back in ``tests/exporters``.
"""
