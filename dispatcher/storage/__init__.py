"""Where flows live: in Redis by value, in files, in importable modules."""
