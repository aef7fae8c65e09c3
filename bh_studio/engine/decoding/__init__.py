"""One token after another: the ways to compute the next one, and which a model takes."""
