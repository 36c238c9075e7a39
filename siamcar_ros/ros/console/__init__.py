"""The operator's page: its server, its pictures and its cameras. See docs/console.md."""
