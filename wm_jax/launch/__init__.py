"""One description of a job, rendered for each place where it may run: ``wm-jax launch``."""
