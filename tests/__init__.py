"""The checks of BH Studio: their folders mirror the rooms they check."""
