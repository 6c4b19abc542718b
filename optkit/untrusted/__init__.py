"""What comes from a file is not believed: paths that it names, names that it gives, and how they are quoted."""
