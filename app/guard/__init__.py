"""Who may see what: who comes in, what belongs to whom, and how much one visitor may ask of this machine."""
