"""Helpers shared by all functions that take an AnnData: columns, matrices, gene matches, labels, groups, slots."""
