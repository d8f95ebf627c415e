"""A local page on which a person tries a model; `tfseg.page` serves it."""
