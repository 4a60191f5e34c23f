"""Jobs: what is being made, what waits, and what became of it."""
