"""The page of two answers."""
