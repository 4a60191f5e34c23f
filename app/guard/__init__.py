"""Access control: who is let in, who owns what, and how much one visitor may ask of this machine."""

API = "/gradio_api/"  # what the paths of Gradio's own endpoints begin with
