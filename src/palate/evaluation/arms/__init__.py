"""Did an adapter make a generator better? Its arms at the same seeds, compared prompt by prompt."""
