"""Features, probes, training loop and metrics: everything that runs a model on data."""
