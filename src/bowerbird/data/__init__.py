"""What all media share: files and archives, what can be fetched, splits, the order of examples, tables.

Importing this package imports no torch.
"""
