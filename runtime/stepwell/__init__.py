"""Durable, typed workflows."""
