"""What the inspector of a token shows."""
