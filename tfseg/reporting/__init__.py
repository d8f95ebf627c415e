"""What a finished run shows to people: the parts of `tfseg.report` and `tfseg.figures`."""
