"""Ahead of time: the training step compiled for a TPU slice that is not here, and what it costs."""
