"""The Create page: one desk a browser, and what happens on it."""
