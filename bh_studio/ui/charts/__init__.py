"""Charts of expert counts. Knows no page."""
