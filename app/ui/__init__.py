"""The look that every room shares: theme, own parts, pictures in pages, handlers that never raise."""
