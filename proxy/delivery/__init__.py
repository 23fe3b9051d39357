"""The way to people: webhooks, chat and mail, through one guarded way out of the network."""
