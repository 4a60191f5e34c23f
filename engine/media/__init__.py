"""Pictures and clips: opened, encoded, probed, exported, and the scene that an MP4 carries."""
