"""What is read from disk: tables and page folders as sources, ALTO and PAGE XML, image files of bounded cost."""
