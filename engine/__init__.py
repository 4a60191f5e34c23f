"""Troupe's engine: a scene goes in, a video comes out. It knows nothing of pages, sessions or users."""

VERSION = "0.1.0"
