"""Metrics: pure functions of tensors, and the networks whose features they compare.  Knows no models, no data."""
