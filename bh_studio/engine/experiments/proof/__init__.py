"""The checks that say how far a comparison can be believed."""
