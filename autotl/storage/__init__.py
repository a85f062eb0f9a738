"""What is kept on disk: the run folder, the cache, saved models, finished trials."""
