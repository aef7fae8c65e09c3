"""Records as text for a terminal and as CSV. Knows no command."""
