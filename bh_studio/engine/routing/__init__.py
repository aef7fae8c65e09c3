"""From router logits to a selection of experts. Loads torch, never transformers."""
