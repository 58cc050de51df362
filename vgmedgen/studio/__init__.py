"""A local page on which a clinician synthesises images."""
