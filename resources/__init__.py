"""Files that ship with the program: the embedded model, texts, icons, style. No code."""
