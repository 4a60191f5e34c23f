"""How a clip is run on this machine: what it needs, in bytes and seconds, and which way suits. Arithmetic only: nothing
here imports torch before it measures something.

shapes.py       what a checkpoint is made of, from its files' headers
footprint.py    bytes of what is computed, from shapes; sizes.py what components take
course.py       which components are on the card at each stage, and what leaves for them: the engine's course, too
stages.py       the course rehearsed: peaks of each stage; speed.py, calibration.py seconds on this machine
settings.py     how a model is run
fast.py           one choice for what is worth it, spelled out
choose.py       which way suits machine and clip; plan.py the choice with its reasons; advice.py what would fit
planner.py      plans for the page, and for the terminal (engine/a2/here.py)
fallbacks.py    what to try next where memory ran out all the same

Not accelerate's infer_auto_device_map: it adds up parameters and buffers, and leaves a tenth of what is free for
everything else (1.15), while here the activations grow with the clip and decide.
"""
