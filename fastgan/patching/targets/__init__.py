"""What is replaced in each library: a file for each, which has a TARGET."""
