"""A model that is larger than the memory it computes in.

quantize.py  weights in 8 bits, row by row
loading.py   a model quantised while it is read, tensor by tensor
cache.py     quantised weights kept on disk, and mapped the next time
slabs.py     transformer blocks that come to the device one after another, while the one before them computes
layout.py    the tensors of some modules as one run of bytes
copies.py    what carries the bytes: CUDA's streams and events, or plain copies
staging.py   a thread with a few small buffers, where the host's memory cannot be pinned

Nothing here knows which model it is.
"""
