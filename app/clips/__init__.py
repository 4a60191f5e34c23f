"""The Clips tab: the queue, the gallery of clips, and the actions on them."""
