"""The panel that shows what the router and a rule did for one token."""
