"""Commands that reproduce the paper's table 1 and figure 4; the code is `tfseg.paper`."""
