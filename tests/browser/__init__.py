"""A package, so that fixtures of scope "package" end with it: Playwright keeps an event loop in the main thread.

Tests that call asyncio.run come after these; they would meet that loop if the fixtures lasted for the session.
"""
