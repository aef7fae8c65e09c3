"""What the background of a token can say."""
