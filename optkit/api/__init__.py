"""One file for each command: settings in, a record out. The command line and the Python functions of `optkit` call these."""
