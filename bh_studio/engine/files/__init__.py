"""How files are written and read, whatever is in them. Knows no document and no model."""
