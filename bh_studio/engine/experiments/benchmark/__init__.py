"""How fast a model decodes on this machine, against transformers and against its memory."""
