"""HFFM and DiT, the visual prior, the text side: how they are built, learn and draw."""
