"""Composes: command line, study file, plan, execution, and where results lie on disk.

``penultimate`` loads this package first, so nothing heavy is imported here.
"""
