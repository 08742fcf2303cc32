"""The embedded servers and the services as child processes, for `make run` and for tests."""
