"""The draft engine: an animated storyboard from the cast's cut-outs, the prompt and the layout. CPU only, in seconds.

direct   prompt and scene -> camera move, motions, who holds what (vocabulary reads its table, words.toml)
measure  cut-out -> its box, where it is cropped, what kind of figure it is
layout   who stands where: people and things on a stage
light    cut-out -> a lit tile with its shadow
backdrop the background, or a painted studio
camera, motion, easing   paths and poses over time
puppet   a tile warped on to a frame
render   all of it: frames
engine   what the door knows of it
"""
