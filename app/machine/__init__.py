"""This machine: its hardware and plans for clips, and its owner's settings."""
