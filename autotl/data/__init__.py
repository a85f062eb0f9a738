"""From a folder of images to a manifest, its splits, and decoded pixels."""
