"""Results as pictures: charts, their two ways of drawing, the HTML page, the Perfetto timeline."""
