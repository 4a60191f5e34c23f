"""A model that is larger than the memory: what this machine has, what a clip needs, and how the two are brought
together."""
