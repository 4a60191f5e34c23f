"""Several cards, one clip: the paper's context, guidance and VAE parallel. What each card does is planned in
engine/a2/plan/degrees.py.

show.py       a clip made by several cards, as the engine sees it: fallbacks where memory runs out, frames one by one
crew.py       the processes, one a card: started, told, heard and ended by whoever makes the clip
messages.py   what they and whoever has started them say to each other
rank.py       one of these processes: python -m engine.a2.parallel.rank
company.py    what the recipe asks in each of them (engine/a2/ensemble.py)
agree.py      one answer for all of them
context.py    each computes a part of the tokens
"""
