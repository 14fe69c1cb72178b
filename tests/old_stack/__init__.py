"""Tests of the same path in the package."""
