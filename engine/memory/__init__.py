"""A model that is larger than the memory: its weights quantised while they are read, and kept so on disk."""
