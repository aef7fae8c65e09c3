"""Levels that use a given mean number of experts."""
