"""What a rule is, as a value and as a text. Loads no torch."""
