"""Backbones: which there are, where their weights come from, how they divide into stages."""
