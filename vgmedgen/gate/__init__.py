"""The release gate: no synthetic image is cleared before it was compared with real ones."""
