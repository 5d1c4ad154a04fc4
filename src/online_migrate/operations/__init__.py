"""One file per kind of step; docs/add-an-operation.md says what a new one needs."""
