"""Machines: deployments, launches, clusters."""
