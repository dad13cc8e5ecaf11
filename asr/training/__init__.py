"""What the recipes share: data, alignment, optimiser, loop parts, language model estimation."""
