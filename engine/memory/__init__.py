"""A model that is larger than the memory it computes in: what this machine has, what a clip needs, and how the two are
brought together.

hardware.py  what this machine has; host.py its memory, container limits counted
shapes.py    what a checkpoint is made of, from its files' headers
footprint.py bytes, from shapes; stages.py peaks of each stage; speed.py, calibration.py seconds on this machine
settings.py  how a model is run; choosing.py, plan.py which way suits machine and clip; advice.py what would fit
chunking.py  feed-forward layers over parts of the tokens
shortage.py  memory that ran out, and the numbers; ladder.py what to try next
quantize.py  weights in 8 bits, row by row
loading.py   a model quantised while it is read, tensor by tensor
cache.py     quantised weights kept on disk, and mapped the next time
slabs.py     transformer blocks that come to the device one after another, while the one before them computes
layout.py    the tensors of some modules as one run of bytes
copies.py    what carries the bytes: CUDA's streams and events, or plain copies
streamed.py  a block's forward that brings its weights first
staging.py   a thread with a few small buffers, where the host's memory cannot be pinned
"""
