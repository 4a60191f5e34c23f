"""A model that is larger than the memory it computes in. Nothing here knows which model: it is given modules, names of
blocks and files.

hardware.py     what this machine has; host.py its memory, container limits counted; card.py what may be held of a card
ledger.py       the account of what is held, by name, and the peaks of each phase
shortage.py     memory that ran out, and the numbers
weights.py      weight files by their headers: what they hold, whether they are whole
quantize.py     weights in 8 bits, row by row
loading.py      a model read tensor by tensor, quantised or mapped from its files
cache.py        quantised weights kept on disk, and mapped the next time
model_cache.py  the loaded model, kept for the next job
slabs.py        a model whose blocks come to the device one after another; which stay there, which may be lent
homes.py        where a block's bytes wait: in memory, or in the file that they came from
slots.py        the two places on the device, filled while the block before computes
layout.py       the tensors of some modules as one run of bytes
copies.py       what carries the bytes: CUDA's streams and events, or plain copies
streamed.py     a block's forward that brings its weights first
staging.py      a thread with a few small buffers, where the host's memory cannot be pinned
"""
