"""The visual prior: what an image shows, as an anatomy and a style vector."""
