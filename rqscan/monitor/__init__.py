"""Monitor: Redis → snapshot → trouble → lines → the screen. It only reads."""
