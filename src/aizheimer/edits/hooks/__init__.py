"""One file for each runtime behaviour: how a pipeline draws while it is on, from tensors and settings alone."""
