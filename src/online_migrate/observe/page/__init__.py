"""The status page and the report: one page without a build step, drawn from one document.

``document`` says what is shown, ``throughput`` how fast rows were written, ``serve`` answers a browser,
``report`` reads the whole journal, ``files`` holds the page's own files.  The browser decides nothing: it
lays out the document.
"""
