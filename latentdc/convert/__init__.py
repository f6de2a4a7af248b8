"""Other people's checkpoints → safetensors decoder folders; no code of a file is ever run.

``latentdc.convert.run.convert(file, kind=..., out=...)``; ``KINDS`` there lists the layouts.
"""
