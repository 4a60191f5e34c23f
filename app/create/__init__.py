"""The Create page: one desk per browser, and its handlers."""
