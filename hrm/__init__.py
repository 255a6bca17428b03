"""Recursive reasoning models with learned halting."""
