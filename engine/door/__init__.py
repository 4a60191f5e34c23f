"""The one door to every engine: a scene goes in, a whole MP4 comes out; the command line stands beside it."""
