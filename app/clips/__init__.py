"""The Clips tab: what is being made, everything that was made, and what can be done with it."""
