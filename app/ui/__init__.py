"""What all tabs share: the theme, components of our own, pictures as data URLs, and error handling for handlers."""
