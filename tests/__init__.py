"""The checks of BH Studio: engine/ and ui/ mirror the packages they check."""
