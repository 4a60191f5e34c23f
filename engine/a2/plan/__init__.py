"""How a clip is run on this machine: what it needs, in bytes and seconds, and which way suits. Arithmetic only: nothing
here imports torch before it measures something.

shapes.py       what a checkpoint is made of, from its files' headers
footprint.py    bytes, from shapes; stages.py peaks of each stage; speed.py, calibration.py seconds on this machine
settings.py     how a model is run
choose.py       which way suits machine and clip; plan.py the choice with its reasons; advice.py what would fit
fallbacks.py    what to try next where memory ran out all the same

Not accelerate's infer_auto_device_map: it adds up parameters and buffers, and leaves a tenth of what is free for
everything else (1.15), while here the activations grow with the clip and decide.
"""
