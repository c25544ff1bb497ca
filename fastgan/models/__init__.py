"""Networks of the recipes."""
