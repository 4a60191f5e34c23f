"""A model that is larger than the memory it computes in. Nothing here knows which model: it is given modules, names of
blocks and files.

hardware.py     what this machine has; host.py its memory, container limits counted
shortage.py     memory that ran out, and the numbers
weights.py      weight files by their headers: what they hold, whether they are whole
quantize.py     weights in 8 bits, row by row
loading.py      a model quantised while it is read, tensor by tensor
cache.py        quantised weights kept on disk, and mapped the next time
model_cache.py  the loaded model, kept for the next job
slabs.py        transformer blocks that come to the device one after another, while the one before them computes
layout.py       the tensors of some modules as one run of bytes
copies.py       what carries the bytes: CUDA's streams and events, or plain copies
streamed.py     a block's forward that brings its weights first
staging.py      a thread with a few small buffers, where the host's memory cannot be pinned
"""
