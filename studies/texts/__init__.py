"""Words against characters: two classifiers of short texts. See docs/studies/texts.md."""
