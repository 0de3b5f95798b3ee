"""The command line: `modjax VERB --config=FILE:VARIANT --workdir=DIR`. One file a verb."""
