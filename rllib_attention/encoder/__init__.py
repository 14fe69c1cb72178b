"""The attention encoder, shared by both API stacks."""
