"""Reports for people: tables, charts, diagnosis, the HTML page."""
