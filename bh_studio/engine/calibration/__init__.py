"""Recording router logits, what experts weigh, and how good a null is."""
