"""Charts of the null that the p-values of a side come from."""
