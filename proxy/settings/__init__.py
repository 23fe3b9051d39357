"""The configuration file: its schema, its loading, its secrets. The only reader of the
environment.
"""
