"""Tests of `rllib_attention.export`."""
