"""Advice: how near the data is to ImageNet, how much there is, and what follows."""
