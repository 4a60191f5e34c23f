"""The Models room: what the a2 engine needs on this machine, and getting it."""
