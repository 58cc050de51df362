"""What a run is told: its plan, the whole configuration, and how files fill them."""
