"""What a label is, how label files are read, and the types that protocols are given."""
