"""Jobs: the running one, the waiting ones, and those that are over."""
