"""The page, its state on disk, and the jobs that it runs. Imports no torch."""
