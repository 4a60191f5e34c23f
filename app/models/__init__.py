"""The Models tab: what the a2 engine needs on this machine, and how to get it."""
