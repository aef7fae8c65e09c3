"""The place of models: what there is, downloads, loading."""
