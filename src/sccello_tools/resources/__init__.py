"""Data files that ship inside the package; README.md says where each comes from."""
