"""What the window knows. No widgets."""
