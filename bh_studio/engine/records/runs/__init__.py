"""Runs in folders of their own, written while they go on: their lines, writer and reader."""
