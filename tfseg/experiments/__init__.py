"""The paper's experiments, run as plain commands, resumed and tabulated: table 1 and figure 4."""
