# The version of the workspace. scripts/clients compares them.
VERSION = "0.1.0"
