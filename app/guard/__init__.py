"""Who may see what: who comes in, what belongs to whom, and how much one visitor may ask of this machine."""

API = "/gradio_api/"  # what the paths of Gradio's own endpoints begin with
