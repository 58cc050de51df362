"""Keys, signatures, and a log that shows when it was changed."""
