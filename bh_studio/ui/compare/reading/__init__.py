"""What all sides read: the switch to it, and texts from files."""
