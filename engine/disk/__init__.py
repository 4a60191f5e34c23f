"""Files on disk: written whole or not at all, found below a folder, locked, measured."""
