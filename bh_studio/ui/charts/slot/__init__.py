"""The frame around a chart: what is picked, read, kept and saved of it. Knows no page."""
