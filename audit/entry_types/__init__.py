"""Every kind of entry the log can hold, one frozen class each, by what it is about; `audit.entries` has them all."""
