"""Models on a hub: what there is, what is here of it, and fetching it. Loads no torch."""
