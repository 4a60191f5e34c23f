"""Help when something breaks: what is wrong with this machine, and what to tell who can mend it."""
