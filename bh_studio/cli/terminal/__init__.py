"""Standard streams, widths, progress and Ctrl+C. Knows no command."""
