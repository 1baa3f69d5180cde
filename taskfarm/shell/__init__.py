"""Farms of shell commands: ``python -m taskfarm shell`` and `taskfarm.Command`."""
