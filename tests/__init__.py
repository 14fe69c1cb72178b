"""Tests of rllib_attention."""
