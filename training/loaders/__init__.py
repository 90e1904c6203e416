"""Loaders: batches of training images, from memory or from files.

Imports: study, training.augmentation and below; torch. To add a loader, a module here with the methods of ``loader.Loader`` (of files: a ``files.FileLoader``), and its name in
``make.make_loader``.
"""
