"""What the sides made of a text that they all read, in words. QtCore only: knows no widget."""
