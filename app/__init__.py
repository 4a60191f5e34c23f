"""The face of Troupe: the page, what it remembers, and the jobs it runs. Imports no torch."""
