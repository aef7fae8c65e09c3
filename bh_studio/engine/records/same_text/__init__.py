"""What several routings make of the same given text."""
