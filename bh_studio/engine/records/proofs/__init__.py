"""What was checked of a comparison, so that a person knows how far to believe it."""
