"""The window. Imports the engine's values, never the engine's libraries."""
