"""The floor that all assignments stand on; a notebook imports `from nndl import lab`, the commands are in cli.py."""
