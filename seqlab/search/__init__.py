"""Search over a model's `step` and `reorder`."""
