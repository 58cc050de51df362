"""Local training: one loop, one step function per stage, and the base bundle."""
