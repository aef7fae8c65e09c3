"""What the routers decided at every position, and how probable each token was."""
