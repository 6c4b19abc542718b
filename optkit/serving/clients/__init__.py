"""The clients that packaging writes: real modules that need nothing of optkit, and what copies them beside a package."""
