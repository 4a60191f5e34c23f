"""Access control: who is let in, who owns what, and how much one visitor may ask of this machine.

Gradio's own log-in does not do it (6.31): any account gets any upload whose path it knows, and the results of any
session whose id it knows; and no account is the owner.
"""

API = "/gradio_api/"  # what the paths of Gradio's own endpoints begin with
