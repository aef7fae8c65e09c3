"""What charts are drawn with: axes, frames of cells, filled areas."""
