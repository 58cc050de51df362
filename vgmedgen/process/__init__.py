"""Long-running processes: one instance, children that are kept alive, logs."""
