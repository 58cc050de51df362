"""What a run is judged by: losses, alignment, and the report that shows them."""
