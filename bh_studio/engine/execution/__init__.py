"""Who answers requests, in which order and in which thread. Knows neither Qt nor the terminal."""
