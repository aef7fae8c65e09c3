"""The dialog of models: what there is, downloads, loading."""
