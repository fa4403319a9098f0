"""What runs in a browser, measured in headless Chromium."""
