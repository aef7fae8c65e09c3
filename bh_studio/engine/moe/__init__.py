"""Experts and routers inside a model of transformers: finding, patching, computing them."""
