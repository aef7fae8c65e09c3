"""What the window knows of models on this machine, on a hub and on their way here. QtCore only."""
