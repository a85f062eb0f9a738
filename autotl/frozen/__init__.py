"""What frozen stages give, computed once: embeddings, cached views, and the fastest exact way to them."""
