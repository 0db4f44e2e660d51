"""Metric functions on labels and pixels: numpy in, numbers out, no models and no global random state."""
