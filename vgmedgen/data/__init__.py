"""Datasets as records: images, masks, captions, splits, and phantoms."""
