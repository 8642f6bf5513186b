"""A server on loopback, for tests, in a thread of its own."""

import threading
from contextlib import contextmanager
from http.server import ThreadingHTTPServer


@contextmanager
def serving(handler, made):
    """Serve until the block ends.

    Args:
        handler: The class that answers requests.
        made: Called with the server's address, before it serves; what it returns is yielded, and
            handlers find it as `self.server.of_test`.
    """
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    server.of_test = made(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.of_test
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
