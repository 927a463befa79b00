"""Labelled cases and a bundle's answers to them. No torch."""
