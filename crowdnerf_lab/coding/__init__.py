"""Models for the air: entropy coding, and files of which any prefix beyond the first layer renders."""
