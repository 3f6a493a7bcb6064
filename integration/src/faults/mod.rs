//! Faults: what is left of a container when something around it breaks, at every step of its life.
//!
//! A *cell* is one fault at one step ([`matrix`]). It runs some *rounds* ([`round`]) in a lane of
//! its own: a fresh container each, the fault at another moment or depth each, and a judgement of
//! the answers, of the cleaning up and of what is left. containerd's side is `shim-client` and a
//! process that takes events ([`events`]), so that it can be killed and stopped like the others.
//!
//! ```text
//! outside (run) ── a lane a cell ── stage ── life: bootstrap, create, start, running, exec, delete
//!                                              ↑ strike: a blow inside a step
//!                                              ↑ hold:   something runs out during a step
//! ```

pub mod after;
pub mod calls;
pub mod events;
pub mod hold;
pub mod life;
pub mod many;
pub mod matrix;
pub mod report;
pub mod role;
pub mod round;
pub mod run;
pub mod stage;
pub mod strike;
pub mod tap;
