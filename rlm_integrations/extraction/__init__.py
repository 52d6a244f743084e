"""The text of PDF, HTML, DOCX, EPUB and mail files, read in a process of its own."""
