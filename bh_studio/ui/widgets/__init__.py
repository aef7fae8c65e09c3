"""Small parts of a window that know nothing of models or routing."""
