"""Studies that anyone can run again; docs/studies tells what came out."""
