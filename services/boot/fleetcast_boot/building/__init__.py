"""Builds boot images from Debian's packages and the agent that is installed here. As root, with Debian's tools."""
