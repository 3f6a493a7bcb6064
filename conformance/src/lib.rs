//! The cases that every containerd shim must pass.
