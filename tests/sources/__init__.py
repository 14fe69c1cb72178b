"""Tests of where policies come from."""
