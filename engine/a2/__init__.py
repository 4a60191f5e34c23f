"""SkyReels-A2: reference pictures and a prompt in, a video out (elements-to-video on Wan2.1's diffusion transformer).

The recipe reads top-down in recipe.py: load -> gather_references -> condition -> sample -> decode.

options.py        what a person may choose
geometry.py       frames and latents, tokens, tiles
plan/             how a clip is run on this machine
files.py          a checkpoint on disk: found, whole
compute.py        device, precision
checkpoint.py     its components, as far as they are loaded; loading.py loads them
moving.py         brings them to where they compute, and lets them go
lora_files.py     a LoRA file, understood
adapters.py       LoRAs, fused into the weights or beside them, and taken out again
attention.py      how attention is computed
step_cache.py     a step that changes little, reused
computing.py      how the blocks compute: chunking.py over parts of the tokens, compiling.py compiled, context.py with
                  keys and values of text and pictures that are kept
references.py     cast -> the canvases that the model sees
packing.py        many of the cast on few canvases
conditioning.py   prompt and canvases -> tensors
sampling.py       noise -> latents; stops between blocks, goes on where it stopped
state.py          a run on disk, between two steps
preview.py        latents -> a small picture, at no cost
decoding.py       latents -> frames, a few at a time
here.py           what nobody has said, planned for the machine that this process runs on
recipe.py         all of it; notices.py what the person should know of it
rescue.py         the same in spite of memory that runs out

Nothing here imports torch before it is needed: `options`, `files`, `references` and `packing` never do.
"""
