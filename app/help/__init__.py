"""Help when something breaks: what is wrong with this machine, and what a report needs."""
