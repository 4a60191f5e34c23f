"""This machine, as the page knows it: what it can do with the model, and what its owner has chosen."""
