"""The load side: mock of a provider, generator, subjects, and the clock on their CPU."""
