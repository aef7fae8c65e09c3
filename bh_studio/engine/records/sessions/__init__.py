"""Sessions: what they are, their files, and what they are exported as."""
