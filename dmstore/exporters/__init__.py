"""Writing runs and datamodels in the formats of other tools: one format a module."""
