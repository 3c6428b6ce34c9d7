"""TensorRT from the host: which rules its parser and builder have, and whether a graph keeps them.

Nothing here needs TensorRT, and nothing here lowers, builds or runs a model for it.
"""
