"""What rules cost on true texts."""
