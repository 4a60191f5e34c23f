"""What is to be made: the scene file, its cast, its prompt, and the presets that fill one in."""
