"""One call of `fit` or `advise`, step by step."""
