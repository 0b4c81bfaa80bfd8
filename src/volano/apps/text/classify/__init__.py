"""Texts told apart by class."""
